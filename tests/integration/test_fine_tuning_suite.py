"""The fine-tuning knobs from the command line to the record, on a tiny checkpoint in a pair with small images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.records.read import load_records
from tests.helpers.checkpoints import bert
from tests.unit.test_docs_examples import IN_SMALL

LAYERS = 2


def record(place: Path, name: str, *options: str) -> dict[str, Any]:
    """The record of one MTL run of VQA with a pair of small images and a checkpoint's texts."""
    folder = place / "bert"
    if not folder.exists():
        bert(folder, num_hidden_layers=LAYERS)
    argv = ["vqa", *IN_SMALL, "--encoder.towers", f"small+hf:{folder}", "--auxiliaries", "contrastive", "masked_lm"]
    argv += ["--strategies", "MTL", "--views", "equal-steps", "--seeds", "1", "--results", name, *options]
    assert main(argv) == 0
    (run,) = load_records(Path(name), "vqa", "default").finished
    return dict(run.values)


def test_knobs_reach_the_record_and_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = record(tmp_path, "plain")
    groups = {row["group"]: row for row in plain["model"]["trained"]}
    assert groups["text"]["learning_rate"] == 1e-4
    assert groups["others"]["learning_rate"] == 4e-3, "MTL's own"
    assert plain["warnings"] == [] or all("likely cure" in warning for warning in plain["warnings"])

    live = ("--encoder.cache-frozen", "off")
    frozen = record(tmp_path, "frozen", "--encoder.freeze", "text", "--encoder.learning-rate", "0.01", *live)
    rows = {row["group"]: row["parameters"] for row in frozen["model"]["trained"]}
    assert rows == {"all": groups["others"]["parameters"], "frozen": groups["text"]["parameters"]}
    for task in ("vqa", "contrastive", "masked_lm"):
        before, after = plain["flops"]["by_task"][task], frozen["flops"]["by_task"][task]
        assert after["forward"] == before["forward"]
        assert after["backward"] < before["backward"]

    layered = record(tmp_path, "layered", "--encoder.layer-decay", "0.5", "--encoder.freeze", "text:0")
    found = {row["group"]: row["learning_rate"] for row in layered["model"]["trained"]}
    assert found["text, layer 1"] == pytest.approx(1e-4 * 0.5**LAYERS)
    assert found[f"text, layer {LAYERS + 1}"] == 1e-4
    assert "text, layer 0" not in found


def test_lora_with_gradient_checkpointing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    plain = record(tmp_path, "plain", "--encoder.lora-rank", "2")
    rows = {row["group"]: row for row in plain["model"]["trained"]}
    assert rows["text"]["parameters"] == LAYERS * 6 * 2 * 2 * 16
    assert rows["text"]["learning_rate"] == 1e-3
    again = record(tmp_path, "again", "--encoder.lora-rank", "2", "--encoder.gradient-checkpointing")
    assert again["metrics"] == plain["metrics"], "the same numbers"
    assert again["flops"]["total"] > plain["flops"]["total"], "another forward pass"


def test_a_part_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["vqa", *IN_SMALL, "--strategies", "MTL", "--views", "equal-steps", "--results", "out"]
    assert main([*small, "--encoder.freeze", "vision"]) == 2
    assert "unknown part to freeze 'vision'" in capsys.readouterr().err
    assert main([*small, "--encoder.lora-rank", "4"]) == 2
    assert "lora_rank of an encoder with nothing pretrained" in capsys.readouterr().err
