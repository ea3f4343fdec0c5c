"""Training beside its peers: equal losses on equal batches, and lines that follow from what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import peers_training, training_worker
from benchmarks.speed.lines import Comparison, Line, TooLongError, in_process, quartiles
from mt2st.errors import Mt2stError

pytest.importorskip("webdataset", reason="open_clip_train needs it")
pytest.importorskip("pandas", reason="open_clip_train needs it")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """The workers' tasks run in this process, and their names are remembered."""
    asked: list[str] = []

    def run(module: str, task: str, arguments: dict[str, Any], **more: Any) -> Any:
        asked.append(task)
        return json.loads(json.dumps(training_worker.main(task, json.loads(json.dumps(arguments)))))

    monkeypatch.setattr(peers_training, "in_process", run)
    monkeypatch.setattr(peers_training, "_LOADERS", (0,))  # no processes of a loader in a test
    return lambda task: [name for name in asked if name == task]


def test_a_smoke_run_measures_both_sides(here: Callable[[str], list[str]], tmp_path: Path) -> None:
    arguments = ["--smoke", "--parts", "losses", "files", "memory", "--threads", "1", "--results", str(tmp_path)]
    assert peers_training.main(arguments) == 0
    (folder,) = (tmp_path / "peers" / "training").iterdir()
    record = json.loads((folder / "run.json").read_text())
    for trainer in ("open_clip_train", "transformers"):
        curves = record["measurements"][f"{trainer}/losses"]
        assert curves["ours"][0] == pytest.approx(curves["theirs"][0], rel=1e-6)
        assert curves["ours"] == pytest.approx(curves["theirs"], rel=1e-4)
        assert len(set(curves["theirs"])) == 6, "every step has another batch, or agreement would say little"
        rates = record["measurements"][f"{trainer}/files"]
        assert len(rates["runs"]["ours"]) == len(rates["runs"]["theirs"]) == 1
        assert rates["prepared"]["images"] == 16
        assert set(rates["their_trials_images_per_second"]) == {"0"}
        memory = record["measurements"][f"{trainer}/memory"]["runs"]
        assert ("ours, texts cut" in memory) == (trainer == "open_clip_train")
        table = (folder / "TABLE.md").read_text().replace("\\", "")
        assert f"{trainer}, image files against our store: images/s, ours" in table
    agreement = [line for line in record["lines"] if "relative difference" in line["what"]]
    assert [line["met"] for line in agreement] == [True, True]


def test_other_losses_are_missed() -> None:
    curves = {"ours": [2.0, 1.0], "theirs": [2.0, 1.1], "nudged": [2.0, 1.1 + 1e-7]}
    agreement, noise, _ = peers_training.loss_lines("them", curves)
    assert agreement.met is False
    assert agreement.value == "9.1e-02"
    assert noise.value == "9.1e-08"
    assert peers_training.loss_lines("them", {**curves, "ours": [2.0, 1.1 - 2e-7]})[0].met is True
    with pytest.raises(Mt2stError, match="logged 1 losses and the other 2"):
        peers_training.loss_lines("them", {**curves, "ours": [2.0]})


def test_rates_are_judged_by_pairs() -> None:
    def runs(seconds: list[float]) -> list[dict[str, Any]]:
        return [
            {
                "seconds_per_step": each,
                "processor_seconds_per_step": each / 2,
                "images_per_second": 10 / each,
                "peak_bytes": 2e6,
            }
            for each in seconds
        ]

    both = {"ours": runs([1.0, 2.0, 4.0]), "theirs": runs([2.0, 3.0, 4.0])}
    prepared = {"seconds": 10.0, "images": 200}
    found = {
        line.what.partition(": ")[2]: line for line in peers_training.rate_lines("them", "files", both, 1.3, prepared)
    }
    ratio = found["images/s, ours / theirs"]
    assert ratio.value == "1.50 [1.25, 1.75]"
    assert ratio.met is True
    assert found["ms to prepare a photo once; paid back after"].value == "50.0 ms; 0.5 epochs"
    assert peers_training.rate_lines("them", "files", both, 1.6, None)[0].met is False
    assert peers_training.rate_lines("them", "memory", both, None, None)[0].met is None


def test_a_step_after_a_switch_costs_less_than_one_that_runs_all_tasks() -> None:
    turns = {
        "switched": [{"seconds_per_step": 1.0, "processor_seconds_per_step": 1.0, "flops_per_step": 10.0}],
        "always_both": [{"seconds_per_step": 1.8, "processor_seconds_per_step": 1.7, "flops_per_step": 20.0}],
    }
    flops, seconds, processor = peers_training.switch_lines(turns)
    assert (flops.value, flops.met) == ("2.00", True)
    assert seconds.value == "1.80 [1.80, 1.80]"
    assert processor.value == "1.70 [1.70, 1.70]"


def test_a_comparison_keeps_what_it_found_so_far(tmp_path: Path) -> None:
    comparison = Comparison("peers training", "Title", peers_training.Options(), tmp_path)
    comparison.keep("first", [1], [Line("a", "1", "≥ 2", met=False)])
    assert json.loads((comparison.folder / "run.json").read_text())["measurements"] == {"first": [1]}
    comparison.keep("second", [2], [Line("b", "2")])
    record = json.loads((comparison.folder / "run.json").read_text())
    assert [line["met"] for line in record["lines"]] == [False, None]
    assert "MISSED" in (comparison.folder / "TABLE.md").read_text()
    assert quartiles([1.0, 2.0, 4.0], 1) == "2.0 [1.5, 3.0]"


def test_bad_options() -> None:
    for arguments, words in (
        (["--parts", "loses"], "did you mean 'losses'"),
        (["--trainers", "transformer"], "did you mean 'transformers'"),
        (["--pairs", "0"], "--pairs = 0"),
        (["--width", "100"], "--width = 100 must be a multiple of 64"),
        (["--image-size", "20"], "--image-size = 20 must be a multiple of 8"),
    ):
        with pytest.raises(Mt2stError, match=words):
            peers_training.main(arguments)


def test_a_process_that_fails_or_takes_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "a_worker.py").write_text(
        "import json, sys, time\n"
        "if sys.argv[1] == 'sleep': time.sleep(60)\n"
        "if sys.argv[1] == 'fail': sys.exit('no luck')\n"
        "print('noise'); print(json.dumps(json.loads(sys.argv[2])))\n"
    )
    assert in_process("a_worker", "echo", {"x": 1}) == {"x": 1}
    with pytest.raises(Mt2stError, match=r"measuring fail .* exit code 1: no luck"):
        in_process("a_worker", "fail", {})
    with pytest.raises(TooLongError, match="sleep took longer than 1 s"):
        in_process("a_worker", "sleep", {}, seconds=1)
