"""Sharded search gives the ids and scores of one index, bit for bit; a shard that dies is asked again."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mt2st.errors import Mt2stError
from mt2st.index import _shards, create_index, search_shards

ITEMS, WIDTH = 21_000, 8


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    """Many items twice or three times, far apart, so that ties reach over the shards."""
    rows = np.random.default_rng(0).normal(size=(ITEMS, WIDTH)).astype(np.float32)
    rows[ITEMS // 2 :] = rows[: ITEMS - ITEMS // 2]
    rows[100:200] = rows[0]
    return rows


@pytest.fixture(scope="module")
def queries(gallery: np.ndarray) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(1100, WIDTH)).astype(np.float32)
    rows[:20] = gallery[:20]  # row 0 has more ties than results
    return rows


def one_index(spec: str, gallery: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    index = create_index(spec, threads=1, **({"ties": "lowest"} if "faiss" in spec else {}))
    index.add(gallery)
    return index.search(queries, k)


@pytest.mark.parametrize(
    ("spec", "metric"),
    [
        ("exact", "cosine"),
        ("exact", "dot"),
        ("exact", "euclidean"),
        ("faiss_cpu:Flat", "cosine"),
        ("faiss_cpu:Flat", "euclidean"),
        ("faiss_cpu:IVF16,Flat?nprobe=4", "dot"),
        ("faiss_cpu:SQ8", "cosine"),
    ],
)
def test_shards_equal_one_index(
    spec: str, metric: str, gallery: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    if spec.startswith("faiss"):
        pytest.importorskip("faiss")
    full = f"{spec}{'&' if '?' in spec else '?'}metric={metric}"
    scores, ids = one_index(full, gallery, queries, 7)
    for shards in (1, 5) if spec == "exact" else (5,):
        found = search_shards(gallery, queries, 7, shards=shards, spec=full, scratch=tmp_path)
        np.testing.assert_array_equal(found[1], ids)
        np.testing.assert_array_equal(found[0], scores)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_of_equal_scores_the_lowest_ids_come_first(metric: str) -> None:
    """Small whole numbers, whose products are exact wherever they are computed: against a stable sort."""
    rng = np.random.default_rng(2)
    items, asked = (rng.integers(-9, 10, (count, 3)).astype(np.float32) for count in (20_000, 1030))
    few = asked[:30]
    truth = few.astype(np.float64) @ items.T
    if metric == "euclidean":
        truth -= (items.astype(np.float64) ** 2).sum(axis=1) / 2
    expected = np.argsort(-truth, axis=1, kind="stable")[:, :7]
    for spec, some in (("exact", asked), ("faiss_cpu:Flat", few)):  # exact is cut from 1,024 queries on
        found = search_shards(items, some, 7, shards=4, spec=f"{spec}?metric={metric}")[1]
        np.testing.assert_array_equal(found[:30], expected)
    np.testing.assert_array_equal(one_index(f"faiss_cpu:Flat?metric={metric}", items, few, 7)[1], expected)


def test_files_over_processes_and_few_queries(gallery: np.ndarray, queries: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "gallery.npy", gallery)
    np.save(tmp_path / "queries.npy", queries)
    expected = one_index("exact", gallery, queries, 5)
    found = search_shards(tmp_path / "gallery.npy", tmp_path / "queries.npy", 5, shards=2, workers=2)
    for ours, theirs in zip(found, expected):
        np.testing.assert_array_equal(ours, theirs)
    for count in (0, 1, 30):
        found = search_shards(gallery, queries[:count], 5, shards=3)
        for ours, theirs in zip(found, one_index("exact", gallery, queries[:count], 5)):
            np.testing.assert_array_equal(ours, theirs)
    scores, ids = search_shards(gallery[:3], queries[:2], 5, shards=3)
    assert (ids[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()


def test_pieces_cover_every_pair_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shards, "_QUERIES_A_PIECE", 8192)
    for spec, items, asked, shards in (
        ("exact", 10_000_000, 1_000_000, 16),
        ("exact", 9_000, 1024, 4),
        ("faiss_cpu:Flat", 20_000, 9_000, 3),
        ("faiss_cpu:Flat", 100, 1, 3),
    ):
        pieces = list(_shards._pieces(tmp_path, create_index(spec), items, asked, 10, shards))
        assert len({piece.shard for piece in pieces}) <= shards
        assert sum((piece.stop - piece.start) * (piece.last - piece.first) for piece in pieces) == items * asked
        for piece in pieces:
            assert piece.start % piece.block == 0
            assert piece.first % 4096 == 0


def killing(stop: threading.Event, most: int) -> Callable[[], None]:
    """Kill worker processes as they appear."""

    def run() -> None:
        killed: set[int] = set()
        while not stop.is_set() and len(killed) < most:
            for child in multiprocessing.active_children():
                if child.pid is not None and child.pid not in killed and len(killed) < most:
                    child.kill()
                    killed.add(child.pid)
            time.sleep(0.001)

    return run


@pytest.mark.parametrize("most", [1, 10**9])
def test_a_shard_that_dies_is_asked_again_or_named(
    most: int, gallery: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    stop = threading.Event()
    killer = threading.Thread(target=killing(stop, most))
    killer.start()
    try:
        if most == 1:
            found = search_shards(gallery, queries, 5, shards=2, workers=2, scratch=tmp_path)
            for ours, theirs in zip(found, one_index("exact", gallery, queries, 5)):
                np.testing.assert_array_equal(ours, theirs)
        else:
            words = r"no answer from shard 0 \(items 0 to 8191\), 1 \(items 8192 to 20999\) after 3 attempts"
            with pytest.raises(Mt2stError, match=words) as caught:
                search_shards(gallery, queries, 5, shards=2, workers=2, scratch=tmp_path)
            assert "\n" not in str(caught.value)
    finally:
        stop.set()
        killer.join()
    assert not list(tmp_path.iterdir())


@pytest.mark.chaos  # Ray takes longer to start than the rest of this file takes
def test_over_ray(gallery: np.ndarray, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray of this machine, started and ended by the search."""
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        pytest.skip("a cluster of another test is running")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    expected = one_index("exact", gallery, queries, 5)
    found = search_shards(gallery, queries, 5, shards=2, workers=2, engine="ray")
    for ours, theirs in zip(found, expected):
        np.testing.assert_array_equal(ours, theirs)
    assert not ray.is_initialized(), "the Ray that was started is ended"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"spec": "hnswlib"}, "unknown backend of a sharded search"),
        ({"engine": "slurm"}, "unknown engine of a sharded search"),
        ({"shards": 0}, "shards = 0"),
        ({"workers": 0}, "workers = 0"),
        ({"k": 0}, "k = 0"),
        ({"gallery": np.empty((0, 3), np.float32)}, "holds no items"),
        ({"queries": np.ones((2, 4), np.float32)}, "4 wide, but 3"),
        ({"gallery": np.zeros((2, 3), np.float32)}, "zero vectors"),
    ],
)
def test_bad_input(named: dict, words: str) -> None:
    given = {"gallery": np.ones((5, 3), np.float32), "queries": np.ones((2, 3), np.float32), "k": 1, "shards": 2}
    given |= named
    with pytest.raises(Mt2stError, match=words):
        search_shards(given.pop("gallery"), given.pop("queries"), given.pop("k"), **given)
