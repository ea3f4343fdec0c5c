"""`python -m benchmarks embed`: the bits of the run's own evaluation, for any number of jobs and through kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchmarks.cases import load_card
from benchmarks.cli import main
from benchmarks.embeddings import run as embed_run
from benchmarks.embeddings import shards
from benchmarks.embeddings.folder import FILES, LOCK, MANIFEST, UNFINISHED, Unfinished, open_embeddings
from benchmarks.embeddings.trained import trained_run
from benchmarks.records.folder import RunFolder
from benchmarks.records.lock import RunLock
from benchmarks.search.data import load
from benchmarks.suite.runs import Run
from mt2st.data.prepared import PreparedDataset
from mt2st.errors import Mt2stError
from mt2st.files import file_hash, read_sealed_json, write_sealed_json
from mt2st.predict import embed_split
from mt2st.processes import side_by_side
from mt2st.threads import computing_threads
from mt2st.training.config import deciding

ROOT = Path(__file__).parents[2]
DRAWN = ROOT / "tests" / "helpers" / "drawn_dataset.py"
SUITE = [
    *("retrieval", "--data", str(DRAWN), "--image-size", "16", "--steps", "4", "--seeds", "1", "--validations", "1"),
    *("--views", "equal-steps", "--strategies", "MTL", "--validation-fraction", "0.3", "--jobs", "1"),
    *("--images-per-batch", "4", "--caption-images-per-batch", "8", "--on-leak", "drop"),
    *("--encoder.width", "16", "--encoder.embedding-width", "16", "--encoder.fusion-width", "16"),
    *("--encoder.stem-width", "4", "--encoder.vocabulary-size", "300"),
]
ROWS = 7  # of a shard in these tests: 60 images and 60 captions make 18 shards, the last ones shorter


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    assert main([*SUITE, "--data-folder", str(folder / "data"), "--results", str(folder / "results")]) == 0
    return next((folder / "results" / "retrieval" / "default").glob("mtl-*"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shards, "SHARD_ROWS", ROWS)
    monkeypatch.setattr(embed_run, "SHARD_ROWS", ROWS)
    yield
    shards.opened.cache_clear()


def embed(run_dir: Path, out: Path, *more: str) -> int:
    return main(["embed", str(run_dir), "--out", str(out), "--split", "train", *more])


def hashes(folder: Path) -> dict[str, str]:
    assert not (folder / UNFINISHED).exists()
    open_embeddings(folder, verify="full")
    return {name: file_hash(folder / name) for name in FILES}


@pytest.fixture(scope="module")
def undisturbed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_ROWS", ROWS)
        patch.setattr(embed_run, "SHARD_ROWS", ROWS)
        assert embed(trained, out, "--jobs", "1") == 0
    return hashes(out)


def test_the_bits_are_those_of_a_whole_split_in_one_process(trained: Path, undisturbed: dict, tmp_path: Path) -> None:
    """Shards of 7 rows are batches of 7 rows; texts are as long as the longest of all."""
    run = trained_run(trained)
    split = PreparedDataset.open(next((trained.parents[2].parent / "data").glob("drawn*"))).split("train")
    with computing_threads(1):
        encoder = run.encoder("cpu")
        tokens = encoder.towers.tokenize(split.caption_texts())
        used = int((tokens != encoder.towers.pad_id).any(0).nonzero().max()) + 1
        images, texts = embed_split(encoder, split, tokens[:, :used], batch_size=ROWS)
    for name, array in (("images.npy", images), ("texts.npy", texts), ("text_image.npy", split.caption_images())):
        np.save(tmp_path / name, array)
        assert file_hash(tmp_path / name) == undisturbed[name], name


def test_the_runs_own_embeddings_come_out_again(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command's own shards, which are batches of 256 rows; retrieval metrics are those of the run's record."""
    monkeypatch.setattr(shards, "SHARD_ROWS", 8 * shards.BATCH_ROWS)
    assert main(["embed", str(trained), "--out", str(tmp_path), "--jobs", "1", "--evaluate"]) == 0
    own = load_file(trained / "embeddings.safetensors")
    whole = open_embeddings(tmp_path, verify="full")
    np.testing.assert_array_equal(np.load(whole.images), own["image_embeddings"])
    np.testing.assert_array_equal(np.load(whole.texts), own["text_embeddings"])
    np.testing.assert_array_equal(whole.text_image(), own["text_image_index"])
    record = json.loads((trained / "run.json").read_text())
    found = read_sealed_json(tmp_path / "retrieval.json", "")
    assert found["metrics"] == record["metrics"]["test"]
    assert [json.loads(line) for line in (tmp_path / "image_ids.jsonl").open()] == [f"test-{n}" for n in range(20)]


def test_two_jobs_give_the_bits_of_one(trained: Path, undisturbed: dict, tmp_path: Path) -> None:
    assert embed(trained, tmp_path, "--jobs", "2") == 0
    assert hashes(tmp_path) == undisturbed


def test_others_join_only_for_work_that_is_worth_it(
    trained: Path, undisturbed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unasked, this process makes the first shard and looks how long it took."""
    asked: list[int] = []

    def alone(work: Any, pieces: Any, workers: int, threads: int = 1) -> Any:
        asked.append(workers)
        return side_by_side(work, pieces, 1)

    monkeypatch.setattr(embed_run, "side_by_side", alone)
    monkeypatch.setattr(embed_run, "slots_here", lambda needs, jobs_per_device, most: min(5, most))
    assert embed(trained, tmp_path / "little") == 0
    monkeypatch.setattr(embed_run, "_WORTH_SECONDS", 0.0)
    assert embed(trained, tmp_path / "much") == 0
    assert asked == [1, 5]
    assert hashes(tmp_path / "little") == hashes(tmp_path / "much") == undisturbed


KILLED = """
import os, signal, sys
from benchmarks.cli import main
from benchmarks.embeddings import folder, progress, run, shards

def killing(function, calls):
    count = [0]
    def called(*arguments, **options):
        count[0] += 1
        if count[0] == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return called

if __name__ == "__main__":
    rows, point, calls, *argv = sys.argv[1:]
    shards.SHARD_ROWS = run.SHARD_ROWS = int(rows)
    place, name = {
        "plan": (run, "write_sealed_json"),
        "begin": (folder, "write_npy_header"),
        "rows before their note": (folder, "write_text"),
        "a shard done": (progress.ShardProgress, "done"),
        "finishing": (folder, "sync_file"),
        "manifest": (folder, "write_sealed_json"),
        "tidying": (folder.shutil, "rmtree"),
    }[point]
    setattr(place, name, killing(getattr(place, name), int(calls)))
    sys.exit(main(argv))
"""


@pytest.mark.parametrize(
    ("point", "calls", "jobs"),
    [
        ("plan", 1, 1),
        ("begin", 1, 1),
        ("begin", 2, 1),
        ("rows before their note", 1, 1),
        ("rows before their note", 11, 1),
        ("a shard done", 5, 2),
        ("finishing", 3, 1),
        ("manifest", 1, 1),
        ("tidying", 1, 1),
    ],
)
def test_killed_anywhere_and_repeated_it_gives_the_same_bits(
    point: str, calls: int, jobs: int, trained: Path, undisturbed: dict, tmp_path: Path
) -> None:
    script, out = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(KILLED)
    argv = ["embed", str(trained), "--out", str(out), "--split", "train", "--jobs", str(jobs)]
    command = [sys.executable, str(script), str(ROWS), point, str(calls), *argv]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if point != "tidying":
        assert not (out / MANIFEST).exists()
        with pytest.raises(Mt2stError):
            open_embeddings(out)
    if point == "a shard done":
        notes = list((out / UNFINISHED).glob("*-0*"))
        assert 5 <= len(notes) < 18
    assert embed(trained, out, "--jobs", "1") == 0
    assert hashes(out) == undisturbed


def test_finished_shards_are_not_computed_again_but_spoilt_ones_are(
    trained: Path, undisturbed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []
    work = shards.embed_shard

    def counted(shard: shards.Shard) -> float:
        if len(calls) == 12:
            raise KeyboardInterrupt
        calls.append((shard.kind, shard.start))
        return work(shard)

    monkeypatch.setattr(embed_run, "embed_shard", counted)
    assert embed(trained, tmp_path, "--jobs", "1") == 130
    first = list(calls)
    assert len(set(first)) == 12
    with (tmp_path / UNFINISHED / "images.npy").open("r+b") as stream:
        stream.seek(200)  # in the first row, behind the header of 128 bytes
        stream.write(b"\x00\x01")
    calls.clear()
    assert embed(trained, tmp_path, "--jobs", "1") == 0
    assert calls[0] == ("images", 0)
    assert not set(calls[1:]) & set(first)
    assert hashes(tmp_path) == undisturbed
    calls.clear()
    (tmp_path / ".ranking-left").mkdir()  # by an evaluation that was killed
    assert embed(trained, tmp_path) == 0
    assert calls == []
    assert not (tmp_path / ".ranking-left").exists()
    assert hashes(tmp_path) == undisturbed


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["embed", *argv]) == 2
    found = capsys.readouterr().err
    assert found.startswith("error: ")
    assert found.count("\n") == 1
    return found


def test_other_data_runs_and_folders_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(trained), tmp_path / "out"
    assert embed(trained, out, "--jobs", "1") == 0
    whole = {path: path.read_bytes() for path in out.iterdir()}
    assert "data split = 'train', not 'test'" in refused(capsys, run, "--out", str(out))
    assert "data captions = 'all', not 'main'" in refused(
        capsys, run, "--out", str(out), "--split", "train", "--captions", "main"
    )
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    assert "is not empty" in refused(capsys, run, "--out", str(tmp_path / "foreign"))
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.txt"]
    prepared = next((trained.parents[2].parent / "data").glob("drawn*"))
    assert "something else than embeddings" in refused(capsys, run, "--out", str(prepared))
    assert "is a file" in refused(capsys, run, "--out", str(tmp_path / "foreign" / "thesis.txt"))
    assert "unknown split" in refused(capsys, run, "--out", str(tmp_path / "new"), "--split", "tset")
    assert "--captions" in refused(capsys, run, "--out", str(tmp_path / "new"), "--captions", "none")
    assert "--jobs 100000" in refused(capsys, run, "--out", str(tmp_path / "new"), "--jobs", "100000")
    assert "give --data as well" in refused(capsys, run, "--out", str(tmp_path / "new"), "--map", "image=img")
    assert not (tmp_path / "new").exists()
    with RunLock(out / LOCK):
        assert "is in use by process" in refused(capsys, run, "--out", str(out), "--split", "train")
    assert {path: path.read_bytes() for path in out.iterdir()} == whole
    with (out / "texts.npy").open("ab") as stream:
        stream.write(b"more")
    assert "so it is torn" in refused(capsys, run, "--out", str(out), "--split", "train")


def test_a_plan_of_another_torch_is_not_gone_on_with(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_run, "embed_shard", lambda shard: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embed(trained, tmp_path, "--jobs", "1")
    plan = tmp_path / UNFINISHED / "plan.json"
    found = read_sealed_json(plan, "")
    write_sealed_json(plan, {**found, "computed": {**found["computed"], "torch": "0.4"}})
    assert "computed torch = '0.4'" in refused(capsys, str(trained), "--out", str(tmp_path), "--split", "train")


def test_runs_that_cannot_embed_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert "is no folder" in refused(capsys, str(tmp_path / "none"), *out)
    assert "no embeddings of images and texts" in refused(capsys, str(begun(tmp_path, "image")), *out)
    assert "is not finished" in refused(capsys, str(begun(tmp_path, "vqa")), *out)
    for harm, words in (
        (lambda run: (run / "weights.safetensors").unlink(), "is missing though run.json lists it"),
        (lambda run: spoil(run / "weights.safetensors"), "does not match its checksum"),
        (lambda run: (run / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    ):
        copy = tmp_path / "results" / "retrieval" / "default" / trained.name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(trained, copy)
        harm(copy)
        assert words in refused(capsys, str(copy), *out)
    assert not (tmp_path / "out" / MANIFEST).exists()


def spoil(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def begun(root: Path, case: str) -> Path:
    """The folder of a run that was begun and not trained."""
    knobs = load_card(case).knobs("default")
    folder = RunFolder.of(
        root / "begun",
        case,
        "default",
        strategy="STL",
        view="equal-steps",
        seed=0,
        config={"knobs": knobs.shared(), "data": {}, "strategy": deciding(knobs.strategy("STL")), "steps": 3},
        conditions={
            **knobs.conditions(),
            "strategy_place": "STL",
            "run": asdict(Run("STL", 0, 3, ("equal-steps",), 1, 0.5)),
        },
    )
    with folder.lock():
        folder.begin()
    return folder.path


def test_data_without_captions_and_of_another_size(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DRAWN.read_text()
    (tmp_path / "mute.py").write_text(text.replace('(f"a {colour} {shape}",) if number == 0 else ()', "()"))
    options = ("--out", str(tmp_path / "out"), "--data-folder", str(tmp_path / "data"))
    assert "has no captions" in refused(capsys, str(trained), *options, "--data", str(tmp_path / "mute.py"))
    prepared = next((tmp_path / "data").glob("drawn*"))
    manifest = read_sealed_json(prepared / "manifest.json", "")
    write_sealed_json(prepared / "manifest.json", {**manifest, "image_size": 8})
    assert "8 px" in refused(capsys, str(trained), *options, "--data", str(prepared))


def test_no_room_is_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = (str(trained), "--out", str(tmp_path), "--split", "train", "--jobs", "1")
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.embeddings.folder.shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
        assert "GB are free" in refused(capsys, *argv)
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.embeddings.folder.os.fsync", no_space)
        assert "No space left on device; make room" in refused(capsys, *argv)
    assert embed(trained, tmp_path, "--jobs", "1") == 0


def no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_an_encoder_that_diverged_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*arguments: object, **options: object) -> np.ndarray:
        return np.full((ROWS, 16), np.nan, np.float32)

    monkeypatch.setattr(shards, "embed_images", diverged)
    words = refused(capsys, str(trained), "--out", str(tmp_path), "--split", "train", "--jobs", "1")
    assert "no finite embedding for row 0 of the images" in words


def test_the_search_benchmark_takes_the_folder(trained: Path, tmp_path: Path) -> None:
    assert embed(trained, tmp_path / "out", "--jobs", "1") == 0
    data = load(str(tmp_path / "out"), "", "", "text_to_image", 5, 0)
    np.testing.assert_array_equal(data.gallery, np.load(tmp_path / "out" / "images.npy"))
    np.testing.assert_array_equal(data.queries, np.load(tmp_path / "out" / "texts.npy"))
    np.testing.assert_array_equal(data.relevant, np.load(tmp_path / "out" / "text_image.npy"))
    unfinished = Unfinished(tmp_path / "half", {"images": 3, "texts": 3}, 4)
    unfinished.begin()
    with pytest.raises(Mt2stError, match="unfinished embeddings"):
        load(str(tmp_path / "half"), "", "", "text_to_image", 5, 0)


def test_the_encoder_is_as_it_was_trained(trained: Path) -> None:
    """In evaluation mode, with the checkpoint's weights, twice the same."""
    first, second = (trained_run(trained).encoder("cpu") for _ in range(2))
    assert not first.training
    for (name, ours), (_, theirs) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
