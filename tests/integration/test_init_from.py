"""`--init-from`: from the command line to weights, record and table; across cases, in workers, and after a stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from benchmarks.cli import main
from benchmarks.records.read import load_records
from tests.helpers.tiny_suite import arguments, differences, outcome, run_folders

ONE = ("--strategies", "MTL", "--steps", "4", "--threads", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished pretraining on captions alone, `pretrained`."""
    folder = tmp_path_factory.mktemp("init_from")
    argv = arguments("retrieval", folder / "first", folder / "data", *ONE, "--jobs", 1, "--auxiliaries", "masked_lm")
    assert main([*argv, "--keep", "weights", "--validation-fraction", "0.1"]) == 0
    (run,) = run_folders(folder / "first", "retrieval")
    shutil.copytree(run, folder / "pretrained")  # another name than when it ran
    return folder


def record(results: Path, case: str = "vqa") -> dict[str, Any]:
    (run,) = load_records(results, case, "default").finished
    return dict(run.values)


def start(place: Path, name: str, *more: object, case: str = "vqa", source: str = "pretrained") -> tuple[int, Path]:
    """Run a suite that starts from a run; its exit code and results folder."""
    argv = arguments(case, place / name, place / "data", *ONE, "--jobs", 1, "--init-from", place / source, *more)
    return main(argv), place / name


def test_a_finished_run_keeps_its_weights_alone(place: Path) -> None:
    (run,) = run_folders(place / "first", "retrieval")
    assert not (run / "checkpoints").exists()
    listing = record(place / "first", "retrieval")["weights"]
    assert listing["bytes"] == (run / listing["file"]).stat().st_size
    assert any(name.startswith("encoder.") for name in load_file(run / listing["file"]))


def test_vqa_and_retrieval_start_from_a_pretraining(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # a narrow terminal leaves columns out
    # At a learning rate of next to nothing the weights stay what they were taken from.
    code, results = start(place, "vqa", "--mtl.learning-rate", "1e-12", "--weight-decay", "0")
    printed = " ".join(capsys.readouterr().out.split())
    assert code == 0
    pretrained = json.loads((place / "pretrained" / "run.json").read_text())
    found = record(results)
    begun = found["init_from"]
    assert begun["flops"] == pretrained["flops"]["total"] > 0
    assert begun["chain"] == [pretrained["run_id"]]
    assert begun["new"] == ["mixture.objectives.vqa.head"]
    assert begun["unused"] == []
    assert begun["doubts"] == [], "both cases hold out the same images"
    heads = found["model"]["parameters"] - found["model"]["encoder_parameters"]
    assert 0 < begun["of_parameters"] - begun["taken_parameters"] < heads, "the answers' head alone is new"
    assert f"starts from {pretrained['run_id']} (retrieval" in printed
    assert "its tokenizer taken over" in printed
    assert "pretraining TFLOPs" in printed
    (run,) = run_folders(results)
    assert (run / "tokenizer.json").read_bytes() == (place / "pretrained" / "tokenizer.json").read_bytes()
    source = load_file(place / "pretrained" / "weights.safetensors")
    mine = load_file(max(run.glob("checkpoints/*/model.safetensors")))
    weights = [name for name in source if "running" not in name and "num_batches" not in name]
    assert max(float((mine[name] - source[name]).abs().max()) for name in weights) < 1e-6

    # From that run on to retrieval: what both trainings cost.
    (place / "second").mkdir()
    shutil.copytree(run, place / "second" / run.name)
    code, results = start(place, "back", case="retrieval", source=f"second/{run.name}")
    assert code == 0
    again = record(results, "retrieval")["init_from"]
    assert again["flops"] == found["flops"]["total"] + begun["flops"]
    assert again["chain"] == [pretrained["run_id"], found["run_id"]]
    held_out = "the weights were trained on drawn with another validation_fraction: items held out here for validation"
    assert [doubt.startswith(held_out) for doubt in again["doubts"]] == [True, True], again["doubts"]


def test_a_worker_and_a_resume_give_the_same_bits_and_the_source_may_move(place: Path) -> None:
    code, one = start(place, "here")
    assert code == 0
    code, other = start(place, "there", "--jobs", 2)  # in a worker, which knows the run from its folder alone
    assert code == 0
    mine = outcome(one)
    assert not differences(mine, outcome(other))
    fresh = arguments("vqa", place / "fresh", place / "data", *ONE, "--jobs", 1)
    assert main(fresh) == 0
    assert not set(outcome(place / "fresh")) & set(mine), "other weights to start from are another run"

    # The run is stopped before its record; its source has moved.
    (run,) = run_folders(one)
    (run / "run.json").unlink()
    (place / "pretrained").rename(place / "elsewhere")
    try:
        assert main(["resume", str(run)]) == 2
        code, _ = start(place, "here", source="elsewhere")
        assert code == 0
        assert not differences(mine, outcome(one))
    finally:
        (place / "elsewhere").rename(place / "pretrained")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "is no folder; give the folder of a finished run"),
        (lambda folder: (folder / "run.json").unlink(), "holds no run.json of a finished run"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "is missing though run.json lists it"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"x"), "does not match its checksum"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any, words: str
) -> None:
    shutil.copytree(place / "pretrained", place / "spoilt")
    spoil(place / "spoilt")
    try:
        assert start(place, "never", source="spoilt")[0] == 2
    finally:
        shutil.rmtree(place / "spoilt", ignore_errors=True)
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not run_folders(place / "never")


def test_a_model_of_another_size_is_refused_before_anything_is_trained(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--encoder.width", 32, "--encoder.embedding-width", 32, "--encoder.fusion-width", 32)
    assert start(place, "never", *sizes, "--encoder.stem-width", 8)[0] == 2
    assert "fits this model by name and shape" in capsys.readouterr().err
    assert not run_folders(place / "never")
