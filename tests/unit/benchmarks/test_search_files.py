"""Files of the field as data of the search benchmark, and its recall against ann-benchmarks' definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.commands.index import main
from benchmarks.search.data import load
from benchmarks.search.formats import read_bin, read_ground_truth, write_bin, write_ground_truth
from benchmarks.search.quality import exact_truth, similarities
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json

WIDTH = 6


def vectors(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def by_hand(metric: str, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Distances [Q, N] as ann-benchmarks means them, smaller is nearer."""
    left, right = queries.astype(np.float64), items.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(left[:, None] - right, axis=2)
    if metric == "cosine":
        left, right = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right))
    return (1 if metric == "cosine" else 0) - left @ right.T


def read(path: Path, **named: Any) -> Any:
    return load(str(path), named.pop("queries", ""), "", "text_to_image", named.pop("count", 5), 0, **named)


@pytest.mark.parametrize(("suffix", "dtype"), [(".fbin", "f4"), (".u8bin", "u1"), (".i8bin", "i1")])
def test_binary_vectors_come_back_mapped(suffix: str, dtype: str, tmp_path: Path) -> None:
    values = vectors(0, 40) * 30
    values = values if dtype == "f4" else (values + 128).clip(0, 255) if dtype == "u1" else values.clip(-128, 127)
    values = values.astype(dtype)
    path = tmp_path / f"items{suffix}"
    write_bin(path, values)
    assert path.stat().st_size == 8 + values.nbytes
    found = read_bin(path)
    np.testing.assert_array_equal(found, values)
    assert isinstance(found, np.memmap)
    data = read(path, count=7, metric="euclidean")
    assert (len(data.gallery), len(data.queries), data.metric) == (33, 7, "euclidean")
    write_bin(tmp_path / f"asked{suffix}", values[:3])
    whole = read(path, queries=str(tmp_path / f"asked{suffix}"), metric="dot")
    assert isinstance(whole.gallery, np.memmap), "with queries of its own the gallery is not copied"
    assert len(whole.gallery) == 40


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_ground_truth_is_used_and_checked(metric: str, tmp_path: Path) -> None:
    items, asked = vectors(1, 300), vectors(2, 20)
    distances = by_hand(metric, asked, items)
    best = np.argsort(distances, axis=1)[:, :10]
    write_bin(tmp_path / "items.fbin", items)
    write_bin(tmp_path / "asked.fbin", asked)
    write_ground_truth(tmp_path / "truth.bin", best, np.take_along_axis(distances, best, axis=1))
    ids, lengths = read_ground_truth(tmp_path / "truth.bin")
    np.testing.assert_array_equal(ids, best)
    np.testing.assert_allclose(lengths, np.sort(distances, axis=1)[:, :10], rtol=1e-6)
    names = {"queries": str(tmp_path / "asked.fbin"), "truth": str(tmp_path / "truth.bin"), "metric": metric}
    data = read(tmp_path / "items.fbin", **names)
    found = exact_truth(data, 10)
    np.testing.assert_array_equal(found.ids, best)
    sign = 1 if metric == "cosine" else 0
    np.testing.assert_allclose(sign - found.similarities, np.sort(distances, axis=1)[:, :10], atol=1e-9)
    np.testing.assert_array_equal(exact_truth(data, 11).ids[:, :10], best)  # more than the file has: searched
    write_ground_truth(tmp_path / "truth.bin", best[:, ::-1] * 0 + np.arange(10), distances[:, :10])
    with pytest.raises(Mt2stError, match="are not the nearest by"):
        exact_truth(read(tmp_path / "items.fbin", **names), 10)


def test_files_that_lie_are_one_line(tmp_path: Path) -> None:
    items = vectors(1, 30)
    write_bin(tmp_path / "items.fbin", items)
    write_bin(tmp_path / "asked.fbin", items[:4])
    good = (tmp_path / "items.fbin").read_bytes()
    sizes = [(31, WIDTH), (2**32 - 1, 2**32 - 1), (0, WIDTH), (30, 0), (2**31, 2**20)]
    for rows, width in sizes:
        (tmp_path / "lies.fbin").write_bytes(np.array([rows, width], "<u4").tobytes() + good[8:])
        with pytest.raises(Mt2stError, match="claims") as caught:
            read(tmp_path / "lies.fbin")
        assert "\n" not in str(caught.value)
    (tmp_path / "short.fbin").write_bytes(b"123")
    write_ground_truth(tmp_path / "far.bin", np.full((4, 2), 30), np.ones((4, 2)))
    write_ground_truth(tmp_path / "few.bin", np.zeros((3, 1), np.int64), np.ones((3, 1)))
    write_ground_truth(tmp_path / "twice.bin", np.zeros((4, 2), np.int64), np.ones((4, 2)))
    write_ground_truth(tmp_path / "nan.bin", np.array([[0, 1]] * 4), np.full((4, 2), np.nan))
    asked = {"queries": str(tmp_path / "asked.fbin")}
    cases: list[tuple[Path, dict[str, str], str]] = [
        (tmp_path / "short.fbin", {}, "3 bytes, too few"),
        (tmp_path / "none.fbin", {}, "is not a file"),
        (tmp_path / "items.fbin", {"truth": str(tmp_path / "far.bin")}, "belongs to a file of queries"),
        (tmp_path / "items.fbin", {"truth": str(tmp_path / "far.bin"), **asked}, "ids from 30 to 30"),
        (tmp_path / "items.fbin", {"truth": str(tmp_path / "few.bin"), **asked}, "of 3 queries"),
        (tmp_path / "items.fbin", {"truth": str(tmp_path / "twice.bin"), **asked}, "names an item twice"),
        (tmp_path / "items.fbin", {"truth": str(tmp_path / "nan.bin"), **asked}, "NaN"),
        (tmp_path / "items.fbin", {"truth": str(tmp_path / "items.fbin"), **asked}, "claims"),
        (tmp_path / "items.fbin", {"metric": "euclid", **asked}, "did you mean 'euclidean'"),
    ]
    for path, named, words in cases:
        with pytest.raises(Mt2stError, match=words):
            read(path, **named)


# -- ann-benchmarks ----------------------------------------------------------------------------------------------------


def field_recall(true_distances: np.ndarray, found_distances: np.ndarray, k: int) -> float:
    """ann-benchmarks' "Recall", by its definition: the share of the first k results that are no farther than the k-th
    true neighbour plus 0.001.
    """
    counts = []
    for true, found in zip(true_distances.tolist(), found_distances.tolist()):
        limit = sorted(true)[k - 1] + 1e-3
        counts.append(len([distance for distance in found[:k] if distance <= limit]))
    return sum(counts) / (k * len(counts))


@pytest.mark.parametrize(("metric", "compressed"), [("cosine", False), ("dot", True), ("euclidean", False)])
def test_recall_is_that_of_ann_benchmarks(metric: str, compressed: bool, tmp_path: Path) -> None:
    """A data set in its format, results in its format, and its metric on both, computed here anew."""
    h5py = pytest.importorskip("h5py")
    from benchmarks.search.hdf5 import write_hdf5

    items, asked = vectors(3, 800), vectors(4, 30)
    distances = by_hand(metric, asked, items)
    best = np.argsort(distances, axis=1)[:, :20]
    near = np.take_along_axis(distances, best, axis=1)
    write_hdf5(tmp_path / "small.hdf5", items, asked, best, near, metric, compressed)
    data = read(tmp_path / "small.hdf5")
    np.testing.assert_array_equal(data.gallery, items)
    np.testing.assert_array_equal(data.queries, asked)
    np.testing.assert_array_equal(data.neighbors, best)
    assert data.metric == metric
    setting = "faiss_cpu:IVF16,Flat?nprobe=1,3"
    arguments = ["--data", str(tmp_path / "small.hdf5"), "--settings", setting, "--smoke", "--ann-benchmarks"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "index" / "small").iterdir()
    rows = read_sealed_json(folder / "run.json", "")["settings"]
    files = sorted((folder / "ann-benchmarks" / "small" / "10-batch" / "faiss-cpu").iterdir())
    assert len(files) == len(rows) == 2
    with h5py.File(tmp_path / "small.hdf5") as truth:
        for row, file in zip(rows, files):
            with h5py.File(file) as results:
                assert results.attrs["distance"] == {"cosine": "angular"}.get(metric, metric)
                assert results.attrs["count"] == 10
                assert results["neighbors"].shape == results["distances"].shape == (30, 10)
                assert results["times"][0] == pytest.approx(results.attrs["best_search_time"])
                theirs = field_recall(truth["distances"][()], results["distances"][()], 10)
                np.testing.assert_allclose(
                    results["distances"][()], np.take_along_axis(distances, results["neighbors"][()], axis=1), atol=1e-5
                )
            assert row["quality"]["ann_benchmarks_recall@10"] == pytest.approx(theirs, abs=1e-12)
            assert 0.2 < theirs < 0.99


def test_hdf5_that_must_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    from benchmarks.search import hdf5
    from benchmarks.search.hdf5 import layout

    items, ids = vectors(3, 30), np.array([[0, 1]] * 5)

    def written(name: str, **changed: Any) -> Path:
        content = {"train": items, "test": items[:5], "neighbors": ids, "distances": np.ones((5, 2))} | changed
        with h5py.File(tmp_path / name, "w") as file:
            distance = content.pop("distance", "angular")
            if distance is not None:
                file.attrs["distance"] = distance
            for key, value in content.items():
                if isinstance(value, (h5py.ExternalLink, h5py.SoftLink)):
                    file[key] = value
                elif value is not None:
                    file.create_dataset(key, data=value)
        return tmp_path / name

    other = written("other.hdf5")
    with h5py.File(tmp_path / "virtual.hdf5", "w") as file:
        elsewhere = h5py.VirtualLayout((30, WIDTH), "f4")
        elsewhere[:] = h5py.VirtualSource(str(other), "train", (30, WIDTH))
        file.attrs["distance"] = "angular"
        file.create_virtual_dataset("train", elsewhere)
    with h5py.File(tmp_path / "stored.hdf5", "w") as file:
        file.attrs["distance"] = "angular"
        file.create_dataset("train", (30, WIDTH), "f4", external=[(str(other), 0, 30 * WIDTH * 4)])
    with h5py.File(tmp_path / "empty.hdf5", "w") as file:
        file.attrs["distance"] = "angular"
        file.create_dataset("train", (2**40, 2**10), "f4", chunks=(2**8, 2**10))
    cases = [
        (written("a.hdf5", distance=None), "no attribute distance"),
        (written("b.hdf5", distance="hamming"), "unknown attribute distance"),
        (written("c.hdf5", train=None), "no data set 'train' of its own"),
        (written("d.hdf5", test=h5py.ExternalLink(str(other), "test")), "no data set 'test' of its own"),
        (written("e.hdf5", test=h5py.SoftLink("/train")), "no data set 'test' of its own"),
        (written("f.hdf5", train=items[:, 0]), "not rows and columns"),
        (written("g.hdf5", train=np.array([[b"x"]])), "which is not read"),
        (written("h.hdf5", test=items[:5, :3]), "test is 3 wide, train 6"),
        (written("j.hdf5", distances=np.ones((5, 3))), "differ in shape"),
        (tmp_path / "virtual.hdf5", "lies in other files"),
        (tmp_path / "stored.hdf5", "lies in other files"),
        (tmp_path / "empty.hdf5", "claims 1099511627776"),
    ]
    for path, words in cases:
        with pytest.raises(Mt2stError, match=words) as caught:
            layout(path, tmp_path)  # what the process of its own does
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(hdf5, "_told", lambda path, folder, seconds: layout(path, Path(folder)))
    for path, words in (
        (written("i.hdf5", neighbors=ids + 29), "ids from 29 to 30"),
        (written("k.hdf5", train=np.full((30, WIDTH), np.nan, "f4")), "NaN"),
        (tmp_path / "none.hdf5", "is not a file"),
    ):
        with pytest.raises(Mt2stError, match=words):
            read(path)
    with pytest.raises(Mt2stError, match="leave --metric out"):
        read(other, metric="dot")


def test_a_file_that_keeps_the_library_busy_or_crashes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of its own is stopped, and that is one line."""
    h5py = pytest.importorskip("h5py")
    from benchmarks.search import hdf5

    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.attrs["distance"] = "angular"
    monkeypatch.setattr(hdf5, "_SECONDS", 0)  # the limit is reached before the libraries are loaded
    with pytest.raises(Mt2stError, match=r"kept it busy for 0 s \(exit code -\d+\), so it is damaged") as caught:
        read(tmp_path / "a.hdf5")
    assert "\n" not in str(caught.value)


def test_similarities_of_every_metric() -> None:
    from benchmarks.search.data import SearchData

    items, asked, nothing = vectors(5, 20), vectors(6, 4), np.empty(0, np.int64)
    ids = np.array([[3, -1, 7]] * 4)
    for metric in ("cosine", "dot", "euclidean"):
        found = similarities(SearchData("x", items, asked, nothing, nothing, {}, metric), ids)
        expected = -by_hand(metric, asked, items) + (1 if metric == "cosine" else 0)
        np.testing.assert_allclose(found[:, 2], expected[:, 7], atol=1e-12)
        assert np.isneginf(found[:, 1]).all()
