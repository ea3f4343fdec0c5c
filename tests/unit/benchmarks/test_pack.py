"""Packs: arrays come back bit for bit, equal runs give equal bytes, damaged and foreign files are refused."""

from __future__ import annotations

import copy
import io
import json
import random
import time
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors.numpy import load, save

from benchmarks.records import pack as pack_module
from benchmarks.records.pack import PackedSuite, read_pack, write_pack
from mt2st.errors import Mt2stError
from mt2st.files import canonical_json, content_hash

Run = tuple[dict[str, Any], dict[str, np.ndarray]]
DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)
INF, NAN = float("inf"), float("nan")


def run_of(seed: int, items: dict[str, np.ndarray], **more: Any) -> Run:
    """A record as a run folder would hold it, and its arrays."""
    listing = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in items.items()}
    record = {
        **{"run_id": f"stl-equal-steps-s{seed}-0123abcd", "benchmark": "demo", "recipe": "default", "strategy": "STL"},
        **{
            "view": "equal-steps",
            "views": ["equal-steps"],
            "seed": seed,
            "config": {"knobs": {}},
            "config_hash": "0123",
        },
        **{"suite_hash": "4567", "schema_version": 1, "status": "finished", "why": "", "steps": 3, "curve": []},
        **{"started_utc": "2026-01-01T00:00:00+00:00", "flops": {"total": 5.0}, "metrics": {"test": {"accuracy": 0.5}}},
        "items": {"file": "items.safetensors", "sha256": "", "bytes": 1, "arrays": listing} if items else {},
    }
    return record | more, items


def small_suite() -> list[Run]:
    chance = np.random.default_rng(0)
    return [
        run_of(
            seed,
            {
                "score": (chance.random(7) < 0.5).astype(np.float32),
                "confidence": chance.random(7).astype(np.float32),
                "label": np.arange(7) % 3,
            },
        )
        for seed in range(3)
    ]


def same(suite: PackedSuite, runs: list[Run]) -> bool:
    """Whether the suite holds these runs, to the last bit."""
    return list(suite.records) == sorted(record["run_id"] for record, _ in runs) and all(
        suite.records[record["run_id"]] == record
        and {name: (array.dtype, array.shape, array.tobytes()) for name, array in suite.items(record["run_id"]).items()}
        == {name: (array.dtype, array.shape, array.tobytes()) for name, array in items.items()}
        for record, items in runs
    )


# -- what is written comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_values_of_every_type_come_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    kind = np.dtype(dtype).kind
    if kind == "f":
        tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
        values = [NAN, -NAN, INF, -INF, 0.0, -0.0, tiny, -tiny, huge, -huge, 1 / 3]
        payload = np.full(1, -1, f"i{np.dtype(dtype).itemsize}").view(dtype)  # a NaN with all bits set
        array = np.concatenate([np.array(values, dtype), payload])
    else:
        low, high = (0, 1) if kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        array = np.array([low, high, high // 2, 0, 1], dtype)
    runs = [run_of(0, {"x": array}), run_of(1, {"x": array[::-1].copy()}), run_of(2, {"x": array[:2].reshape(1, 2, 1)})]
    write_pack(tmp_path / "runs.zip", runs)
    assert same(read_pack(tmp_path / "runs.zip"), runs)


@st.composite
def suites(draw: st.DrawFn) -> list[Run]:
    """Runs whose arrays differ in names, types and shapes, empty ones and ones without dimensions included."""
    shapes = st.sampled_from([(), (0,), (1,), (5,), (4, 2), (2, 0), (3, 1, 2)])
    names = st.sampled_from(["score", "rank float32 [5]", "__metadata__", "π/μ", ""])
    items = st.dictionaries(names, arrays_of.arrays(st.sampled_from(DTYPES), shapes), max_size=3)
    return [
        run_of(seed, draw(items), extra={"note": draw(st.text(max_size=3))}) for seed in range(draw(st.integers(1, 5)))
    ]


@given(suites(), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_any_suite_comes_back_and_the_order_of_runs_changes_no_byte(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Run], chance: random.Random
) -> None:
    path = tmp_path_factory.mktemp("pack") / "runs.zip"
    size = write_pack(path, runs)
    assert same(read_pack(path), runs)
    content = path.read_bytes()
    assert len(content) == size
    chance.shuffle(runs)
    write_pack(path, [(record, dict(reversed(items.items()))) for record, items in runs])
    assert path.read_bytes() == content


def test_many_runs_that_agree_take_few_bytes(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    label, hard = np.arange(2_000) % 40, chance.random(2_000)
    runs = [
        run_of(seed, {"label": label, "score": (hard < chance.normal(0.8, 0.02)).astype(np.float32)})
        for seed in range(300)
    ]
    size = write_pack(tmp_path / "runs.zip", runs)
    assert size < 300 * 2_000 * 12 / 50, "fifty times smaller than the arrays"
    assert same(read_pack(tmp_path / "runs.zip"), runs)


# -- rounding ----------------------------------------------------------------------------------------------------------


def test_only_the_named_array_is_rounded_and_to_the_nearest_multiple(tmp_path: Path) -> None:
    runs = small_suite()
    write_pack(tmp_path / "runs.zip", runs, {"confidence": 0.001, "no run has this": 0.5})
    suite = read_pack(tmp_path / "runs.zip")
    assert suite.steps["confidence"] == 0.001
    for record, items in runs:
        found = suite.items(record["run_id"])
        assert found["confidence"].dtype == np.float32
        np.testing.assert_allclose(found["confidence"], items["confidence"], rtol=0, atol=0.0005 + 1e-7)
        np.testing.assert_array_equal(found["confidence"], np.round(items["confidence"].astype(float), 3).astype("f4"))
        assert found["score"].tobytes() == items["score"].tobytes()


@pytest.mark.parametrize(
    ("values", "step", "why"),
    [
        (np.array([0.5, NAN]), 0.001, "finite floats"),
        (np.array([INF]), 0.001, "finite floats"),
        (np.array([1, 2]), 0.001, "finite floats"),
        (np.array([0.5]), 0.0, "finite floats"),
        (np.array([0.5]), -0.001, "finite floats"),
        (np.array([0.5]), NAN, "finite floats"),
        (np.array([1e30]), 0.001, "larger step"),
    ],
)
def test_what_cannot_be_rounded_is_refused(tmp_path: Path, values: np.ndarray, step: float, why: str) -> None:
    with pytest.raises(Mt2stError, match=why):
        write_pack(tmp_path / "runs.zip", [run_of(0, {"confidence": values})], {"confidence": step})
    assert not list(tmp_path.iterdir())


def test_two_runs_of_one_id_and_arrays_that_are_not_listed_are_refused(tmp_path: Path) -> None:
    record, items = run_of(0, {"score": np.zeros(3)})
    with pytest.raises(Mt2stError, match="one id"):
        write_pack(tmp_path / "runs.zip", [(record, items), (record, items)])
    for other in ({}, {"score": np.zeros(4)}, {"score": np.zeros(3, np.float32)}, {**items, "more": np.zeros(3)}):
        with pytest.raises(Mt2stError, match="not those that its record lists"):
            write_pack(tmp_path / "runs.zip", [(record, other)])


# -- damage and foreign files ------------------------------------------------------------------------------------------


def read_or_refused(path: Path, runs: list[Run] | None) -> bool:
    """Whether the file was read; it must then hold `runs` (None = anything), else the refusal must be one line."""
    started, refusal = time.process_time(), ""
    try:
        suite = read_pack(path)
        for run_id in suite.records:
            suite.items(run_id)
    except Mt2stError as error:
        refusal = str(error)
    assert time.process_time() - started < 5  # not the clock, which runs on while other processes have the core
    if refusal:
        assert str(path) in refusal
        assert "\n" not in refusal
        assert len(refusal) < 700
        return False
    assert runs is None or same(suite, runs)
    return True


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    write_pack(path, small_suite()[:1])
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert not read_or_refused(path, None), length


def test_flipped_cut_and_repeated_bytes_are_refused_or_change_nothing(tmp_path: Path) -> None:
    path, runs, chance = tmp_path / "runs.zip", small_suite(), random.Random(0)
    write_pack(path, runs, {})
    content, refused = path.read_bytes(), 0
    for _ in range(1_500):
        broken = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            place, length = chance.randrange(len(broken)), chance.randint(1, 40)
            change = chance.randrange(3)
            if change == 0:
                broken[place] ^= 1 << chance.randrange(8)
            elif change == 1:
                del broken[place : place + length]
            else:
                broken[place:place] = broken[place : place + length]
        path.write_bytes(bytes(broken))
        refused += not read_or_refused(
            path, runs
        )  # a flip in a time stamp or an attribute changes nothing that is read
    assert refused > 1_300


def test_empty_missing_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    assert not read_or_refused(path, None)
    for content in (b"", b"PK\x05\x06" + bytes(18), b"\x80\x04cos\nsystem\n(S'true'\ntR.", bytes(1000)):
        path.write_bytes(content)
        assert not read_or_refused(path, None)
    path.unlink()
    path.mkdir()
    assert not read_or_refused(path, None)


def zipped(path: Path, members: list[tuple[str, bytes]], kind: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)


def members_of(path: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "change",
    [
        lambda members: [*members, ("../../outside", b"x")],
        lambda members: [*members, ("more.json", b"{}")],
        lambda members: [("../runs.json", members[0][1]), members[1]],
        lambda members: members[:1],
        lambda members: members[1:],
        lambda members: members[::-1],
        lambda members: [members[0], members[0]],
        lambda members: [(members[0][0], b"[" * 100_000), members[1]],
        lambda members: [(members[0][0], b"[]"), members[1]],
        lambda members: [(members[0][0], b"\xff"), members[1]],
        lambda members: [(members[0][0], b'{"sha256": NaN}'), members[1]],
        lambda members: [(members[0][0], b'{"a": ' + b"9" * 5_000 + b"}"), members[1]],
        lambda members: [members[0], (members[1][0], b"")],
        lambda members: [members[0], (members[1][0], members[1][1][:-1])],
    ],
)
def test_foreign_members_are_refused_and_nothing_is_written(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    path = tmp_path / "inner" / "runs.zip"
    write_pack(path, small_suite())
    zipped(path, change(members_of(path)))
    assert not read_or_refused(path, None)
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused_and_a_stored_pack_is_read(tmp_path: Path, kind: int) -> None:
    path, runs = tmp_path / "runs.zip", small_suite()
    write_pack(path, runs)
    zipped(path, members_of(path), kind)
    assert read_or_refused(path, runs) == (kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("name", ["runs.json", "arrays.safetensors"])
def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "runs.zip"
    write_pack(path, small_suite())
    zipped(path, [(known, bytes(64 << 20) if known == name else content) for known, content in members_of(path)])
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(pack_module, "_LARGEST_BYTES", {"runs.json": 1 << 20, "arrays.safetensors": 1 << 20})
    read, unpacked = zipfile.ZipExtFile.read, 0

    def counted(stream: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        nonlocal unpacked
        content = read(stream, n)
        unpacked += len(content)
        return content

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    with pytest.raises(Mt2stError, match="has 67108864 bytes unpacked, more than the 1048576 of any suite"):
        read_pack(path)
    assert unpacked < 1 << 20


def test_a_member_that_lies_about_its_size_is_refused_without_unpacking_more(tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    for claimed in (0, 1, 1000, 2**31, 2**32 - 1):
        zipped(path, [(name, bytes(8 << 20)) for name in ("runs.json", "arrays.safetensors")])
        content = bytearray(path.read_bytes())
        start = content.find(b"PK\x01\x02")
        while start >= 0:
            content[start + 24 : start + 28] = claimed.to_bytes(4, "little")
            start = content.find(b"PK\x01\x02", start + 4)
        path.write_bytes(bytes(content))
        assert not read_or_refused(path, None), claimed


# -- foreign content under a valid seal --------------------------------------------------------------------------------


def resealed(path: Path, value: dict[str, Any], arrays: bytes) -> None:
    """A pack of these contents, with checksums that agree."""
    value = {**value, "arrays_sha256": sha256(arrays).hexdigest()}
    zipped(
        path,
        [
            ("runs.json", canonical_json({**value, "sha256": content_hash(value)}).encode()),
            ("arrays.safetensors", arrays),
        ],
    )


def unsealed(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (_, records), (_, arrays) = members_of(path)
    value = json.loads(records)
    del value["sha256"]
    return value, load(arrays)


VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**40,
    2**70,
    -1.5,
    1e300,
    "",
    "../../etc",
    "9" * 300,
    [],
    {},
    [[1]],
    {"a": None},
]


def test_any_change_of_a_sealed_value_is_read_or_refused(tmp_path: Path) -> None:
    path, chance = tmp_path / "runs.zip", random.Random(1)
    write_pack(path, small_suite(), {"confidence": 0.01})
    value, tensors = unsealed(path)
    arrays, refused = save(tensors), 0
    for _ in range(600):
        changed = copy.deepcopy(value)
        holder: Any = changed
        while True:
            key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if isinstance(holder[key], (dict, list)) and holder[key] and chance.random() < 0.85:
                holder = holder[key]
                continue
            break
        if chance.random() < 0.25:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
        resealed(path, changed, arrays)
        refused += not read_or_refused(path, None)
    assert refused > 250


def test_arrays_that_are_not_those_of_the_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    write_pack(path, small_suite(), {"confidence": 0.01})
    value, tensors = unsealed(path)
    assert {name: (str(array.dtype), array.shape) for name, array in tensors.items()} == {
        "confidence float32 [7]": ("uint8", (7, 3)),
        "label int64 [7]": ("uint8", (7, 3)),
        "score float32 [7]": ("float32", (7, 3)),
    }
    score, label = "score float32 [7]", "label int64 [7]"
    foreign: list[dict[str, Any]] = [
        {},
        {**tensors, "more": np.zeros(3)},
        {**tensors, score: tensors[score][:, :2].copy()},
        {**tensors, score: tensors[score][:6].copy()},
        {**tensors, score: tensors[score].reshape(-1)},
        {**tensors, score: tensors[score].astype(np.float64)},
        {**tensors, score: tensors[score].astype(np.int64)},
        {**tensors, label: tensors[label].astype(np.float32)},
        {**tensors, label: tensors[label].astype(bool)},
        {**tensors, "confidence float32 [7]": np.zeros((7, 3), np.float32)},
    ]
    for arrays in foreign:
        resealed(path, value, save(arrays))
        assert not read_or_refused(path, None), {name: array.shape for name, array in arrays.items()}
    for arrays_bytes in (b"", b"\xff" * 8, (2**62).to_bytes(8, "little"), b"\x02" + bytes(7) + b"[]"):
        resealed(path, value, arrays_bytes)
        assert not read_or_refused(path, None)


@pytest.mark.parametrize("shape", [[-1, 7], [0, 10**30], [7, 0.5], [True, 7], ["7"], [[7]], [7] + [1] * 100, [2**62]])
def test_shapes_that_lie_are_refused(tmp_path: Path, shape: list[Any]) -> None:
    path = tmp_path / "runs.zip"
    write_pack(path, small_suite()[:1])
    value, tensors = unsealed(path)
    value["runs"][0]["items"]["arrays"]["score"]["shape"] = shape
    count = 0 if 0 in shape else 7
    arrays = {name: array for name, array in tensors.items() if not name.startswith("score")}
    resealed(path, value, save({**arrays, f"score float32 {shape}": np.zeros((count, 1), np.float32)}))
    assert not read_or_refused(path, None)


def test_a_pack_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    write_pack(path, small_suite())
    value, tensors = unsealed(path)
    resealed(path, {**value, "pack_version": 2}, save(tensors))
    with pytest.raises(Mt2stError, match="pack version 2, this code reads 1; get the file again"):
        read_pack(path)


def test_a_pack_holds_no_date(tmp_path: Path) -> None:
    write_pack(tmp_path / "a.zip", small_suite())
    with zipfile.ZipFile(io.BytesIO((tmp_path / "a.zip").read_bytes())) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
