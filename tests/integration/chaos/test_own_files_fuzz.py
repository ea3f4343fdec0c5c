"""Our own files, written by somebody else: whatever stands in them, even under a valid seal, is read or refused in one
line.

Outside data files (annotations, tables, mappings, tars, images) are fuzzed in tests/integration/test_data_fuzz.py in
the same way. The short version runs always, `python -m pytest -m chaos tests/integration/chaos/test_own_files_fuzz.py`
the long one.
"""

from __future__ import annotations

import copy
import io
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from torch import nn

from benchmarks.records.folder import RunFolder
from benchmarks.records.metrics_log import read_metrics
from benchmarks.records.read import load_records
from data_prep.prepare import prepare
from mt2st.data.splits import PreparedDataset
from mt2st.errors import Mt2stError
from mt2st.files import file_hash, read_sealed_json, write_sealed_json
from mt2st.index import create_index, load_index, save_index
from mt2st.index._store import data_path, manifest_path
from mt2st.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from mt2st.vectors import read_vectors

SHORT, LONG, SECONDS_AN_INPUT = 60, 4000, 5.0
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**40,
    -1.5,
    1e300,
    "",
    "x",
    "../../etc",
    [],
    {},
    [None],
    [[1]],
    {"a": None},
    "9" * 300,
]
DRAWN = Path(__file__).parents[2] / "helpers" / "drawn_dataset.py"


def changed_value(chance: random.Random, value: Any) -> Any:
    """A JSON value with one to three places replaced, removed or added."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        _places(value, places)
        if not places:
            continue
        holder, key = chance.choice(places)
        if chance.random() < 0.25:
            del holder[key]
        elif chance.random() < 0.1 and isinstance(holder, dict):
            holder[chance.choice(["extra", "", "sha", "format_version"])] = copy.deepcopy(chance.choice(VALUES))
        else:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
    return value


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    for key in list(value if isinstance(value, dict) else range(len(value))):
        found.append((value, key))
        if isinstance(value[key], (dict, list)):
            _places(value[key], found)


def changed_bytes(chance: random.Random, content: bytes) -> bytes:
    broken = bytearray(content)
    for _ in range(chance.choice((1, 1, 3))):
        at = chance.randrange(len(broken)) if broken else 0
        kind = chance.randrange(4)
        if kind == 0 and broken:
            broken[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            broken[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 2:
            del broken[at : at + chance.choice((1, 8, 200))]
        else:
            broken[at:at] = chance.choice((b"\0" * 8, b"\xff" * 8, b"[" * 50, b"9" * 50, b"\n"))
    return bytes(broken)


class Target:
    """A file, how it is damaged, and who reads it."""

    def __init__(self, path: Path, read: Callable[[], object], sealed: bool) -> None:
        self.path, self.read, self.sealed = path, read, sealed
        self.good = path.read_bytes()
        self.value = read_sealed_json(path, "") if sealed else None

    def spoil(self, chance: random.Random) -> None:
        if self.value is not None and chance.random() < 0.8:
            write_value(self.path, changed_value(chance, self.value))
        else:
            self.path.write_bytes(changed_bytes(chance, self.good))


def write_value(path: Path, value: dict[str, Any]) -> None:
    value.pop("sha256", None)
    write_sealed_json(path, value)


def record_target(folder: Path, name: str) -> Target:
    run = RunFolder.of(folder, "vqa", "default", strategy="STL", view="equal-steps", seed=0, config={"a": 1})
    record = {
        "views": ["equal-steps"], "started_utc": "x", "steps": 1, "flops": {"total": 1},
        "metrics": {"test": {"a": 0.5}}, "floors": {"chance": {"a": 0.1}},
        "curve": [{"step": 1, "flops": 1, "seconds": 0.1}], "group_names": {"t": ["x"]},
    }  # fmt: skip
    with run.lock():
        run.begin()
        run.append_metrics(step=1, event="train")
        run.append_metrics(step=2, event="train")
        run.finish(record, {"score": np.arange(4, dtype=np.float32)})

    def read() -> None:
        for found in load_records(folder, "vqa", "default").finished:
            _ = found.items

    if name == "metrics.jsonl":
        return Target(run.path / name, lambda: read_metrics(run.path / name), False)
    return Target(run.path / name, read, name != "items.safetensors")


def checkpoint_target(folder: Path, name: str) -> Target:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    place = save_checkpoint(folder, 1, model, optimizer, {"value": [1, {"a": 2}]})

    def read() -> None:
        newest_checkpoint(folder)
        load_checkpoint(place, model, optimizer)

    def vouched() -> None:  # a hostile file under a manifest that vouches for it
        state = read_sealed_json(place / "state.json", "")
        write_value(place / "state.json", state | {"files": {file: file_hash(place / file) for file in state["files"]}})
        load_checkpoint(place, model, optimizer)

    return Target(place / name, read if name == "state.json" else vouched, name == "state.json")


def index_target(folder: Path, name: str) -> Target:
    index = create_index("exact")
    index.add(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    path = folder / "index.bin"
    save_index(index, path, "data")
    manifest = read_sealed_json(manifest_path(path), "")
    file = data_path(path, manifest["token"])

    def vouched() -> None:
        write_value(manifest_path(path), manifest | {"file_sha256": file_hash(file)})
        load_index(path, "data").search(np.ones((1, 4), np.float32), 2)

    if name == "manifest":
        return Target(manifest_path(path), lambda: load_index(path, "data"), True)
    return Target(file, vouched, False)


def prepared_target(folder: Path, name: str) -> Target:
    place = prepare(DRAWN, out=folder, image_size=4, workers=0)

    def read() -> None:
        data = PreparedDataset.open(place)
        split = data.split("test")
        split.pixels(np.arange(min(2, split.num_images)))
        split.caption_texts()
        split.answer_texts()

    def vouched() -> None:  # a damaged table under a manifest that vouches for it
        state = read_sealed_json(place / "manifest.json", "")
        facts = {"bytes": (place / name).stat().st_size, "sha256": file_hash(place / name)}
        write_value(place / "manifest.json", state | {"files": state["files"] | {name: facts}})
        read()

    return Target(place / name, read if name == "manifest.json" else vouched, sealed=name == "manifest.json")


def vectors_target(folder: Path, name: str) -> Target:
    stream = io.BytesIO()
    np.save(stream, np.ones((3, 2), np.float32))
    path = folder / name
    path.write_bytes(stream.getvalue() if name.endswith(".npy") else save({"a": np.ones((3, 2), np.float32)}))
    return Target(path, lambda: {key: value.sum() for key, value in read_vectors(path).items()}, False)


TARGETS: dict[str, tuple[Callable[[Path, str], Target], str]] = {
    "record": (record_target, "run.json"),
    "identity": (record_target, "config.json"),
    "items": (record_target, "items.safetensors"),
    "log": (record_target, "metrics.jsonl"),
    "checkpoint state": (checkpoint_target, "state.json"),
    "checkpoint weights": (checkpoint_target, "model.safetensors"),
    "checkpoint optimizer": (checkpoint_target, "optimizer.safetensors"),
    "index manifest": (index_target, "manifest"),
    "index": (index_target, "file"),
    "prepared manifest": (prepared_target, "manifest.json"),
    "prepared images": (prepared_target, "images.arrow"),
    "prepared questions": (prepared_target, "questions.arrow"),
    "npy": (vectors_target, "x.npy"),
    "safetensors": (vectors_target, "x.safetensors"),
}


def fuzz(folder: Path, name: str, inputs: int, seed: int) -> Counter[str]:
    make, file = TARGETS[name]
    target = make(folder, file)
    target.read()
    chance, outcomes = random.Random(f"{seed}:{name}"), Counter[str]()
    for number in range(inputs):
        target.spoil(chance)
        started = time.process_time()
        try:
            target.read()
            outcomes["accepted"] += 1
        except Mt2stError as error:
            assert "\n" not in str(error), (name, number, str(error))  # noqa: PT017
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(
                f"{name}, input {number} ({target.path.read_bytes()[:400]!r}): {type(error).__name__}: {error}"
            ) from error
        assert time.process_time() - started < SECONDS_AN_INPUT, (name, number)
        target.path.write_bytes(target.good)
    return outcomes


@pytest.mark.parametrize("name", list(TARGETS))
def test_damaged_files_of_ours_are_read_or_refused(tmp_path: Path, name: str) -> None:
    outcomes = fuzz(tmp_path, name, SHORT, seed=0)
    assert sum(outcomes.values()) == SHORT


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(TARGETS))
def test_long_damaged_files_of_ours(tmp_path: Path, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = fuzz(tmp_path, name, LONG, seed=1)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{name}: {dict(outcomes)}, peak memory +{grown_mib:.0f} MiB")
    assert grown_mib < 300


@settings(max_examples=60)
@given(lines=st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_as_a_log(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        assert all(isinstance(value, dict) for value in read_metrics(path))
    except Mt2stError as error:
        assert "is not a JSON object" in str(error)  # noqa: PT017
