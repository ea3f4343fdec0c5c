"""A frozen tower in a suite: run once for all runs, the same results; and parts that are frozen for a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.records.read import RunRecord, load_records
from tests.helpers.checkpoints import bert
from tests.unit.test_docs_examples import IN_SMALL


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    bert(tmp_path / "bert", num_hidden_layers=2)
    return tmp_path


def suite(results: str, *options: str) -> dict[tuple[str, str, int], RunRecord]:
    """The records of VQA with small images and a checkpoint's texts, by strategy, view and seed."""
    argv = ["vqa", *IN_SMALL, "--encoder.towers", "small+hf:bert", "--auxiliaries", "contrastive", "masked_lm"]
    assert main([*argv, "--results", results, *options]) == 0
    return {
        (run.strategy, run.views[0], run.seed): run for run in load_records(Path(results), "vqa", "default").finished
    }


def test_a_frozen_tower_is_run_once_for_all(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--strategies", "MTL", "--views", "equal-steps", "--encoder.freeze", "text", "--seeds", "2")
    live = suite("live", *options, "--encoder.cache-frozen", "off")
    assert "frozen text tower" not in capsys.readouterr().out
    kept = suite("kept", *options)
    printed = capsys.readouterr().out
    assert "frozen text tower: " in printed
    assert " MB in data/frozen/text-" in printed
    for name, run in live.items():
        values = kept[name].values
        assert run.values["frozen_towers"] == []
        for split in ("validation", "test"):
            for metric, value in run.values["metrics"][split].items():
                assert values["metrics"][split][metric] == pytest.approx(value, abs=1e-5), metric
        assert values["flops"]["by_task"]["vqa"]["forward"] < run.values["flops"]["by_task"]["vqa"]["forward"]
    passes = {part["key"]: part for run in kept.values() for part in run.values["frozen_towers"]}
    assert [part["part"] for part in passes.values()] == ["text"], "one for both seeds, which label and hold out others"
    folders = sorted(path.name for path in (place / "data" / "frozen").iterdir() if not path.name.startswith("."))
    assert folders == sorted(f"{part['part']}-{part['key'][:16]}" for part in passes.values())
    table = (place / "kept" / "vqa" / "default" / "TABLE.md").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith("| once for all runs: frozen text tower")]
    assert sum(any(letter.isdigit() for letter in cell) for cell in row.split("|")) == 2, "FLOPs and seconds"
    summary = json.loads((place / "kept" / "vqa" / "default" / "summary.json").read_text())
    (text,) = [part for part in passes.values() if part["part"] == "text"]
    assert summary["frozen"]["text"]["flops"] == text["flops"] > 0
    assert summary["frozen"]["text"]["passes"] == 1


def test_budgets_know_what_is_frozen_and_when(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def forecast(runs: dict[Any, RunRecord]) -> list[tuple[int, int]]:
        """FLOPs as planned and as counted, of each run."""
        found = []
        for run in runs.values():
            planned = json.loads((run.folder / "config.json").read_text())["conditions"]["run"]["flops"]
            found.append((planned, run.values["flops"]["total"]))
        return found

    options = ("--strategies", "Switch", "--budgets", "0.5", "--seeds", "1", "--views", "equal-steps", "equal-budget")
    for freeze in ("text", "text@until=0.5", "text@from=0.25", "text:1@from=0.5"):
        runs = suite(freeze, *options, "--encoder.freeze", freeze)
        assert len(runs) == 2
        found = forecast(runs)
        if freeze == "text@from=0.25":  # each text once more, then never; how many come is not known before
            once = [run.values["flops"]["by_task"]["frozen towers"]["forward"] for run in runs.values()]
            assert min(once) > 0
            assert all(counted <= planned + own for (planned, counted), own in zip(found, once, strict=True)), found
            planned, counted = found[list(runs).index(("Switch", "equal-steps", 0))]
            assert counted < planned
        else:
            assert all(planned == counted for planned, counted in found), (freeze, found)
        kinds = [row["kind"] for row in runs["Switch", "equal-steps", 0].values["flops"]["by_kind"]]
        assert {freeze in kind for kind in kinds} == ({False} if freeze == "text" else {False, True})
    assert "frozen text tower" in capsys.readouterr().out
