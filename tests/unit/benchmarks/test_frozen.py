"""A frozen tower kept and run at every step: what the table says of two suites."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.commands import frozen as command
from benchmarks.speed import frozen
from benchmarks.speed.options import FrozenOptions
from mt2st.errors import Mt2stError


def suite(flops: float, seconds: float, score: float, passes: list[dict[str, Any]]) -> dict[str, Any]:
    run = {
        "strategy": "MTL",
        "seed": 0,
        "steps": 10,
        "training_flops": flops,
        "validation_flops": 0,
        "seconds": {"train": seconds, "validate": 1.0, "test": 99.0},
        "score": score,
    }
    return {"runs": [run], "passes": passes}


def said(kept_score: float, flops: float = 3e12) -> dict[str, frozen.Line]:
    passes = [{"items": 100, "flops": 4e12, "seconds": 30.0}]
    found = {"kept": suite(1e12, 4.0, kept_score, passes), "every step": suite(flops, 19.0, 0.5, [])}
    return {line.what: line for line in frozen.lines(found)}


def test_the_pass_pays_after_so_many_runs() -> None:
    lines = said(0.5)
    assert lines["the pass"].value == "100 inputs, 4.00 TFLOPs, 30 s"
    assert lines["MTL, 10 steps: TFLOPs, kept / every step"].value == "1.000 / 3.000"
    assert lines["MTL, 10 steps: training seconds, kept / every step"].value == "5.0 / 20.0"
    assert lines["runs like these after which the pass has paid, FLOPs"].value == "2.0"
    assert lines["runs like these after which the pass has paid, seconds"].value == "2.0"
    assert said(0.5, flops=1e12)["runs like these after which the pass has paid, FLOPs"].value == "never"


def test_other_scores_are_missed() -> None:
    assert said(0.5)["largest difference of a score"].met
    assert said(0.5011)["largest difference of a score"].met is False


def test_bad_options_and_a_suite_that_fails_are_one_line(tmp_path: Any) -> None:
    with pytest.raises(Mt2stError, match="steps = 0"):
        FrozenOptions(steps=0)
    with pytest.raises(Mt2stError, match=r"--encoder\.cache-frozen float32 failed: error: .*no-such"):
        command.main(["--recipe", "no-such", "--results", str(tmp_path)])
