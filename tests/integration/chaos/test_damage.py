"""Every class of byte of every file of ours, flipped and cut: noticed by whoever reads it, and never loaded."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.records.folder import RunFolder
from benchmarks.records.read import load_records
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json, write_sealed_json
from mt2st.index import create_index, load_index, save_index
from mt2st.index._store import data_path, manifest_path
from mt2st.training.checkpoint import newest_checkpoint, save_checkpoint
from mt2st.vectors import matrix_hash

FLIPS = (0x01, 0x80, 0xFF)


def positions(content: bytes, name: str) -> Iterator[tuple[str, int]]:
    """(class of byte, position): of a safetensors file length, header and data; of JSON every byte.

    Of others a grid.
    """
    if name.endswith(".safetensors"):
        header = 8 + struct.unpack("<Q", content[:8])[0]
        for at in range(8):
            yield "header length", at
        for at in range(8, header, max(1, (header - 8) // 40)):
            yield "header", at
        for at in range(header, len(content), max(1, (len(content) - header) // 40)):
            yield "data", at
        yield "last byte", len(content) - 1
    else:
        step = 1 if name.endswith(".json") and len(content) < 4000 else max(1, len(content) // 120)
        for at in range(0, len(content), step):
            yield "content", at
        yield "last byte", len(content) - 1


def sweep(path: Path, unnoticed: Callable[[], object]) -> int:
    """Flip and cut at every position; `unnoticed` returns something true if the damage was not found.

    Returns the number of tries.
    """
    good, tries = path.read_bytes(), 0
    for kind, at in positions(good, path.name):
        broken = [good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :] for flip in FLIPS] + [good[:at]]
        for content in broken:
            path.write_bytes(content)
            found = unnoticed()
            assert not found, f"{path.name}, {kind} at byte {at}: {found}"
            tries += 1
    path.write_bytes(good)
    return tries


@pytest.fixture
def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(6, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_checkpoints(tmp_path: Path, trained: tuple[nn.Module, torch.optim.Optimizer], name: str) -> None:
    model, optimizer = trained
    before = save_checkpoint(tmp_path, 1, model, optimizer, {"value": 1.5})
    newer = save_checkpoint(tmp_path, 2, model, optimizer, {"value": 2.5})
    good = (newer / name).read_bytes()

    def unnoticed() -> object:
        found = newest_checkpoint(tmp_path)
        if found is not None and found[0] == newer and found[1]["value"] == 2.5 and name == "state.json":
            # White space between the values may change; the values are whole, and the other files are vouched for.
            return (newer / name).read_bytes().split() != good.split() and found[1] != {**found[1], "step": 2}
        return found is None or found[0] != before

    assert sweep(newer / name, unnoticed) > 100


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newer_checkpoint_never_pushes_out_a_good_one(tmp_path: Path, trained: tuple, keep: int) -> None:
    model, optimizer = trained
    (save_checkpoint(tmp_path, 9, model, optimizer, {}) / "model.safetensors").write_bytes(b"")
    for step in (3, 4):
        save_checkpoint(tmp_path, step, model, optimizer, {}, keep=keep)
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert found[1]["step"] == step
    assert len(list(tmp_path.glob("step-0000000[34]"))) == keep


@pytest.mark.parametrize("name", ["run.json", "items.safetensors"])
def test_records(tmp_path: Path, name: str) -> None:
    folder = RunFolder.of(tmp_path, "vqa", "default", strategy="STL", view="equal-steps", seed=0, config={})
    record = {
        "views": ["equal-steps"],
        "started_utc": "x",
        "steps": 1,
        "flops": {"total": 1},
        "metrics": {"test": {"a": 0.5}},
        "curve": [],
    }
    with folder.lock():
        folder.begin()
        folder.finish(record, {"score": np.arange(40, dtype=np.float32)})
    good = load_records(tmp_path, "vqa", "default").finished[0].values

    def unnoticed() -> object:
        finished = load_records(tmp_path, "vqa", "default").finished
        return [run.values for run in finished if name != "run.json" or run.values != good]

    assert sweep(folder.path / name, unnoticed) > 200


@pytest.mark.parametrize("spec", ["exact", "faiss_cpu:Flat", "faiss_cpu:IVF4,Flat", "faiss_cpu:HNSW8"])
def test_indexes(tmp_path: Path, spec: str) -> None:
    if spec.startswith("faiss"):
        pytest.importorskip("faiss")
    gallery = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    index = create_index(spec)
    index.add(gallery)
    path, data = tmp_path / "index.bin", matrix_hash(gallery)
    save_index(index, path, data)

    def unnoticed() -> object:
        try:
            return load_index(path, data)
        except Mt2stError:
            return None

    file = data_path(path, read_sealed_json(manifest_path(path), "")["token"])
    assert sweep(file, unnoticed) > 200


class PowerFailure(BaseException):
    """The machine stops: nothing of ours runs after it."""


def save_until(stop: int, path: Path, gallery: np.ndarray) -> int:
    """Save an index of `gallery`, with the machine stopping before the `stop`-th file operation; returns the operations
    made.

    Operations are all that change or sync the folder: opening a file to write, sync, rename, delete. Once stopped, none
    has an effect, so that no cleaning up can help.
    """
    made = 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal made
            if made >= stop:
                raise PowerFailure
            made += 1
            return operation(*arguments, **named)

        return run

    index = create_index("exact")
    index.add(gallery)
    with pytest.MonkeyPatch.context() as patch:
        for holder, name in ((os, "fsync"), (os, "open"), (Path, "write_bytes"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(holder, name, counted(getattr(holder, name)))
        with contextlib.suppress(PowerFailure):
            save_index(index, path, matrix_hash(gallery))
    return made


def test_a_crash_while_an_index_is_overwritten_leaves_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    old, new = (np.random.default_rng(seed).normal(size=(20, 4)).astype(np.float32) for seed in (0, 1))
    save_until(1000, tmp_path / "whole" / "index.bin", old)
    operations = save_until(1000, tmp_path / "whole" / "index.bin", new)
    assert len(list((tmp_path / "whole").iterdir())) == 2, "a save that ends well leaves nothing of the index before"
    assert operations > 10
    loaded = []
    for stop in range(operations):
        path = tmp_path / str(stop) / "index.bin"
        save_until(1000, path, old)
        assert save_until(stop, path, new) == stop
        found = {}
        for name, gallery in (("old", old), ("new", new)):
            with contextlib.suppress(Mt2stError):
                found[name] = load_index(path, matrix_hash(gallery)).search(gallery[:3], 1)[1][:, 0].tolist()
        assert list(found.values()) == [[0, 1, 2]], f"stopped before operation {stop} of {operations}"
        loaded += found
        save_until(1000, path, new)  # and a plain repetition mends all
        assert len(load_index(path, matrix_hash(new))) == 20
    assert loaded == sorted(loaded, reverse=True), "the change from old to new happens once"
    assert {"old", "new"} == set(loaded)


@pytest.mark.parametrize(
    "token",
    ["../../x", "/etc/passwd", "", ".", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef\n", "9" * 300, 7],
)
def test_an_index_manifest_cannot_lead_elsewhere(tmp_path: Path, token: Any) -> None:
    index = create_index("exact")
    index.add(np.eye(4, dtype=np.float32))
    path = tmp_path / "index.bin"
    save_index(index, path, "data")
    manifest = read_sealed_json(manifest_path(path), "")
    good = data_path(path, manifest["token"])
    write_sealed_json(manifest_path(path), manifest | {"token": token})
    with pytest.raises(Mt2stError, match="token") as caught:
        load_index(path, "data")
    assert "\n" not in str(caught.value)
    save_index(index, path, "data")
    assert good.is_file(), "nothing is deleted on the word of such a manifest"
    assert len(load_index(path, "data")) == 4


def test_an_index_manifest_cannot_make_us_import_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harmful_module.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    gallery = np.eye(4, dtype=np.float32)
    index = create_index("exact")
    index.add(gallery)
    path = tmp_path / "index.bin"
    save_index(index, path, "data")
    manifest = read_sealed_json(manifest_path(path), "")
    write_sealed_json(manifest_path(path), manifest | {"backend": "harmful_module.x"})
    with pytest.raises(Mt2stError, match=r"names the backend 'harmful_module\.x'.*import that module first"):
        load_index(path, "data")
    assert not (tmp_path / "executed").exists()
