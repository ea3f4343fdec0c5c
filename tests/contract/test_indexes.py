"""Every search backend keeps the same promises. A new file in `mt2st/index/` is swept the moment it exists."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt2st.errors import Mt2stError
from mt2st.evaluate import check_ids
from mt2st.files import read_sealed_json, write_sealed_json
from mt2st.index import (
    SWEEPS,
    SearchIndex,
    VectorIndex,
    backend_names,
    create_index,
    empty_like,
    load_index,
    parse_spec,
    save_index,
)
from mt2st.index._store import data_path, manifest_path
from mt2st.vectors import matrix_hash

SPECS = {
    "exact": ["exact", "exact?threads=2"],
    "faiss_cpu": [
        "faiss_cpu:Flat",
        "faiss_cpu:IVF4,Flat?nprobe=4",
        "faiss_cpu:IVF2,PQ4x4np?nprobe=2",
        "faiss_cpu:HNSW16?ef_search=64",
        "faiss_cpu:SQ8",
    ],
    "faiss_gpu": ["faiss_gpu:Flat", "faiss_gpu:IVF4,Flat?nprobe=4", "faiss_gpu:IVF2,PQ4np?nprobe=2", "faiss_gpu:CAGRA"],
    "hnswlib": ["hnswlib?threads=1"],
    "milvus": ["milvus:FLAT", "milvus:IVF_FLAT?lists=4&nprobe=4", "milvus:HNSW"],
    "usearch": ["usearch?threads=1", "usearch?storage=f16&threads=1", "usearch?storage=i8&threads=1"],
}
EXACT = ("exact", "exact?threads=2", "faiss_cpu:Flat")
WIDTH = 16
ROOT = Path(__file__).parents[2]


def ready(spec: str) -> VectorIndex:
    """An empty index, or a skip with its reason."""
    try:
        return create_index(spec)
    except Mt2stError as error:
        if "needs" in str(error) or "GPU" in str(error) or "CUDA" in str(error):
            pytest.skip(str(error))
        raise


def sweep() -> list:
    """All settings of all backends; a backend without an entry above is swept with its defaults."""
    result = []
    for name in backend_names():
        marks = [pytest.mark.gpu] if "gpu" in name else []
        result += [pytest.param(spec, marks=marks, id=spec) for spec in SPECS.get(name, [name])]
    return result


@pytest.fixture(params=sweep())
def spec(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((400, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((30, WIDTH)).astype(np.float32)


def cosines(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    left, right = queries.astype(np.float64), gallery.astype(np.float64)
    return left @ right.T / (np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1))


def assert_sound(scores: np.ndarray, ids: np.ndarray, num_queries: int, k: int, num_items: int) -> None:
    """Shapes, types, distinct valid ids, sorted scores, padding."""
    assert scores.shape == ids.shape == (num_queries, k)
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    check_ids(ids, num_items, "tested")
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    np.testing.assert_array_equal(ids < 0, np.isneginf(scores))
    # Missing places come last, and only where there is nothing left to find or the index is approximate.
    assert (np.diff((ids < 0).astype(int), axis=1) >= 0).all()


def test_keeps_the_protocol(spec: str, gallery: np.ndarray, queries: np.ndarray) -> None:
    index = ready(spec)
    assert isinstance(index, SearchIndex)
    assert len(index) == 0
    assert index.index_bytes == 0
    index.add(gallery)
    assert len(index) == len(gallery)
    assert index.index_bytes > 0
    assert empty_like(index).parameters == index.parameters
    assert_sound(*index.search(queries, 10), 30, 10, 400)


def test_finds_most_of_the_true_neighbours(spec: str, gallery: np.ndarray, queries: np.ndarray) -> None:
    index = ready(spec)
    index.add(gallery)
    truth = np.argsort(-cosines(queries, gallery), axis=1)[:, :10]
    _, ids = index.search(queries, 10)
    recall = np.mean([len(set(found) & set(true)) / 10 for found, true in zip(ids, truth)])
    assert recall >= (0.25 if "PQ" in spec else 0.9)
    own, first = index.search(gallery[:50], 1)
    if "PQ" not in spec:
        assert (first[:, 0] == np.arange(50)).mean() >= 0.95
        np.testing.assert_allclose(own[:, 0], 1, atol=0.02)  # scores are cosines, whatever the storage


@pytest.mark.parametrize("exact", EXACT)
def test_exact_equals_faiss_flat_equals_the_full_matrix(exact: str, gallery: np.ndarray, queries: np.ndarray) -> None:
    index = ready(exact)
    index.add(gallery)
    matrix = cosines(queries, gallery)
    for k in (1, 7, 399, 400):
        scores, ids = index.search(queries, k)
        np.testing.assert_array_equal(ids, np.argsort(-matrix, axis=1)[:, :k])
        np.testing.assert_allclose(scores, -np.sort(-matrix, axis=1)[:, :k], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_items=st.integers(1, 40),
    num_queries=st.integers(0, 6),
    k=st.integers(1, 60),
    kind=st.sampled_from(["f2", "f4", "f8"]),
    strided=st.booleans(),
    exact=st.sampled_from(EXACT),
)
def test_any_shape(seed: int, num_items: int, num_queries: int, k: int, kind: str, strided: bool, exact: str) -> None:
    """k > N, no query, one vector, duplicates, half and double precision, non-contiguous input: against the full
    matrix.
    """
    rng = np.random.default_rng(seed)
    items, queries = (rng.integers(-2, 3, (count, 3)).astype(kind) for count in (num_items, num_queries))
    items[~items.any(axis=1)], queries[~queries.any(axis=1)] = 1, 1
    if strided:
        items, queries = np.asfortranarray(items), np.repeat(queries, 2, axis=0)[::2]
    index = create_index(exact)
    index.add(items)
    scores, ids = index.search(queries, k)
    assert_sound(scores, ids, num_queries, k, num_items)
    matrix = cosines(queries, items)
    found = min(k, num_items)
    np.testing.assert_allclose(
        scores[:, :found], -np.sort(-matrix, axis=1)[:, :found], atol=1e-3 if kind == "f2" else 1e-6
    )
    np.testing.assert_allclose(scores[:, :found], np.take_along_axis(matrix, ids[:, :found], axis=1), atol=1e-3)
    assert (ids[:, found:] == -1).all()


@pytest.mark.parametrize(("num_items", "k"), [(1, 1), (1, 5), (3, 2), (3, 10)])
def test_few_items_and_large_k(spec: str, num_items: int, k: int, gallery: np.ndarray, queries: np.ndarray) -> None:
    if "PQ" in spec:
        pytest.skip("a product quantiser has more centroids than these items; see test_more_centroids_than_points")
    index = ready(spec.replace("IVF4", "IVF1").replace("lists=4", "lists=1").replace("nprobe=4", "nprobe=1"))
    index.add(gallery[:num_items])
    for count in (0, 1, 5):
        scores, ids = index.search(queries[:count], k)
        assert_sound(scores, ids, count, k, num_items)
        assert (np.sort(ids, axis=1)[:, -min(k, num_items) :] >= 0).all()


def test_duplicates_give_distinct_ids(spec: str, gallery: np.ndarray) -> None:
    index = ready(spec)
    index.add(np.repeat(gallery[:80], 5, axis=0))
    scores, ids = index.search(gallery[:20], 5)
    assert_sound(scores, ids, 20, 5, 400)
    if "PQ" not in spec and "HNSW" not in spec and "hnsw" not in spec and "usearch" not in spec:
        np.testing.assert_array_equal(np.sort(ids, axis=1) // 5, np.repeat(np.arange(20)[:, None], 5, axis=1))


def test_scale_and_type_do_not_matter(spec: str, gallery: np.ndarray, queries: np.ndarray) -> None:
    """Cosine: lengths drop out. Powers of two change no bit; float64 of the same values neither."""
    plain, scaled = ready(spec), ready(spec)
    plain.add(gallery)
    scaled.add((gallery * 2.0 ** (np.arange(400) % 7 - 3)[:, None]).astype(np.float64))
    for ours, theirs in zip(plain.search(queries, 5), scaled.search(np.asfortranarray(queries * 4), 5)):
        np.testing.assert_array_equal(ours, theirs)


def test_half_precision(spec: str, gallery: np.ndarray, queries: np.ndarray) -> None:
    halves, singles = ready(spec), ready(spec)
    halves.add(gallery.astype(np.float16))
    singles.add(gallery.astype(np.float16).astype(np.float32))
    for ours, theirs in zip(
        halves.search(queries.astype(np.float16), 5), singles.search(queries.astype(np.float16).astype(np.float32), 5)
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_the_callers_arrays_are_neither_written_nor_kept(spec: str, gallery: np.ndarray, queries: np.ndarray) -> None:
    items, asked = gallery / np.linalg.norm(gallery, axis=1, keepdims=True), queries.copy()
    index = ready(spec)
    given, kept = items.copy(), asked.copy()
    index.add(items)
    before = index.search(asked, 5)
    np.testing.assert_array_equal(items, given)
    np.testing.assert_array_equal(asked, kept)
    items[:] = 1
    after = index.search(asked, 5)
    np.testing.assert_array_equal(before[1], after[1])
    before[0][:] = 7  # nor are results shared with the next search
    np.testing.assert_array_equal(index.search(asked, 5)[0], after[0])


def test_adding_in_parts_numbers_on(spec: str, gallery: np.ndarray) -> None:
    if "CAGRA" in spec:
        pytest.skip("CAGRA is built once, over all items")
    index = ready(spec)
    index.add(gallery[:300])
    index.add(gallery[:0])
    index.add(gallery[300:])
    assert len(index) == 400
    _, ids = index.search(gallery[390:], 1)
    if "PQ" not in spec:
        np.testing.assert_array_equal(ids[:, 0], np.arange(390, 400))


def test_save_and_load_give_the_same_answers(
    spec: str, gallery: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    index = ready(spec)
    index.add(gallery)
    path = tmp_path / "an index.bin"
    save_index(index, path, matrix_hash(gallery))
    loaded = load_index(path, matrix_hash(gallery))
    assert len(loaded) == 400
    assert loaded.parameters == index.parameters
    for ours, theirs in zip(index.search(queries, 7), loaded.search(queries, 7)):
        np.testing.assert_array_equal(ours, theirs)
    token = read_sealed_json(manifest_path(path), "")["token"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([f"an index.bin.{token}", "an index.bin.json"])


def test_files_that_must_be_refused(spec: str, gallery: np.ndarray, tmp_path: Path) -> None:
    index = ready(spec)
    index.add(gallery)
    path, data = tmp_path / "index", matrix_hash(gallery)
    with pytest.raises(Mt2stError, match="is missing"):
        load_index(path, data)
    save_index(index, path, data)
    with pytest.raises(Mt2stError, match="another data set"):
        load_index(path, matrix_hash(gallery[::-1]))
    with pytest.raises(Mt2stError, match="data_hash is empty"):
        save_index(index, path, "")
    value = read_sealed_json(manifest_path(path), "")
    file = data_path(path, value["token"])
    whole = file.read_bytes()
    for torn in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b"\x80\x04K\x01."):
        file.write_bytes(torn)
        with pytest.raises(Mt2stError, match="torn or was replaced"):
            load_index(path, data)
    file.unlink()
    with pytest.raises(Mt2stError, match="only its manifest"):
        load_index(path, data)
    file.write_bytes(whole)
    manifest = manifest_path(path).read_text()
    manifest_path(path).write_text(manifest.replace('"count": 400', '"count": 300'))
    with pytest.raises(Mt2stError, match="checksum"):
        load_index(path, data)
    manifest_path(path).write_text(manifest)
    load_index(path, data)
    write_sealed_json(manifest_path(path), value | {"format_version": 99})
    with pytest.raises(Mt2stError, match="format 99"):
        load_index(path, data)


def test_bad_input(spec: str, gallery: np.ndarray) -> None:
    index = ready(spec)
    with pytest.raises(Mt2stError, match="holds no items"):
        index.search(gallery[:1], 1)
    with pytest.raises(Mt2stError, match="nothing to save"):
        save_index(index, Path("never-written"), "hash")
    index.add(np.empty((0, WIDTH), np.float32))
    assert len(index) == 0
    for value, words in ((np.nan, "NaN"), (np.inf, "infinite"), (0.0, "zero vector")):
        wrong = gallery.copy()
        wrong[17] = value
        with pytest.raises(Mt2stError, match=rf"{words}(.|\n)*row 17"):
            index.add(wrong)
    assert len(index) == 0, "a refused batch leaves nothing behind"
    index.add(gallery)
    with pytest.raises(Mt2stError, match="17 wide, but 16"):
        index.add(np.ones((2, 17), np.float32))
    with pytest.raises(Mt2stError, match="15 wide, but 16"):
        index.search(np.ones((2, 15), np.float32), 1)
    with pytest.raises(Mt2stError, match="queries has NaN"):
        index.search(np.full((1, WIDTH), np.nan, np.float32), 1)
    with pytest.raises(Mt2stError, match="queries has shape"):
        index.search(gallery[0], 1)
    for k in (0, -1, 1.0, True, None):
        with pytest.raises(Mt2stError, match="whole number from 1"):
            index.search(gallery[:1], k)
    assert len(index) == len(gallery)


def test_more_centroids_than_points(gallery: np.ndarray) -> None:
    with pytest.raises(Mt2stError, match=r"64 centroids.*20 items"):
        ready("faiss_cpu:IVF64,Flat").add(gallery[:20])
    with pytest.raises(Mt2stError, match="FAISS refused"):
        ready("faiss_cpu:PQ4").add(gallery[:20])  # 256 centroids a sub-space


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("exat", "did you mean 'exact'"),
        ("", "unknown index backend"),
        ("_base", "unknown index backend"),
        ("../exact", "no such module|unknown index backend"),
        ("no.such.module", "no such module"),
        ("exact?devise=cpu", "did you mean 'device'"),
        ("exact?device", "is no knob"),
        ("exact?device=tpu", "device = 'tpu'"),
        ("exact?threads=-1", "threads = -1"),
        ("faiss_cpu:IVF4,Flat?nprobe=0", "nprobe = 0"),
        ("faiss_cpu:IVF4,Flat?nprobe=2.5", "nprobe = 2.5"),
        ("hnswlib?links=1", "links = 1|needs the package"),
        ("usearch?storage=f31", "did you mean 'f32'|needs the package"),
    ],
)
def test_bad_specs(spec: str, words: str) -> None:
    with pytest.raises(Mt2stError, match=words):
        create_index(spec)


@pytest.mark.parametrize("factory", ["Nonsense", "IVF0,Flat", "PQ5", "Flat,"])
def test_bad_factory_strings(factory: str, gallery: np.ndarray) -> None:
    index = ready(f"faiss_cpu:{factory}")
    with pytest.raises(Mt2stError, match=r"FAISS refused|centroids"):
        index.add(gallery)
    assert len(index) == 0


def test_a_knob_the_index_does_not_have(gallery: np.ndarray) -> None:
    index = ready("faiss_cpu:Flat?nprobe=4")
    with pytest.raises(Mt2stError, match="nprobe = 4"):
        index.add(gallery)


def test_asking_for_a_gpu_that_is_not_there() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(Mt2stError, match="no CUDA device"):
        create_index("exact?device=cuda")
    with pytest.raises(Mt2stError, match="GPU"):
        create_index("faiss_gpu")
    assert create_index("exact?device=auto").parameters["device"] == "cpu", "auto says what it chose"


@pytest.mark.gpu
def test_exact_on_a_gpu(gallery: np.ndarray, queries: np.ndarray) -> None:
    index = ready("exact?device=cuda")
    index.add(gallery)
    scores, ids = index.search(queries, 10)
    assert_sound(scores, ids, 30, 10, 400)
    np.testing.assert_array_equal(ids, np.argsort(-cosines(queries, gallery), axis=1)[:, :10])


def test_knobs_change_without_building_again(gallery: np.ndarray, queries: np.ndarray) -> None:
    index = ready("faiss_cpu:IVF16,Flat?nprobe=1")
    index.add(gallery)
    _, few = index.search(queries, 10)
    index.set_search_knobs(nprobe=16)
    _, all_ = index.search(queries, 10)
    np.testing.assert_array_equal(all_, np.argsort(-cosines(queries, gallery), axis=1)[:, :10])
    assert (few != all_).any()
    assert index.parameters["nprobe"] == 16
    index.set_search_knobs(nprobe=None)
    assert index.parameters["nprobe"] == 16
    with pytest.raises(Mt2stError, match="nprobe = 0 must be a whole number"):
        index.set_search_knobs(nprobe=0)
    with pytest.raises(Mt2stError, match="unknown search-time knob of index 'exact' 'nprobe'"):
        create_index("exact").set_search_knobs(nprobe=1)


def test_searches_from_several_threads(gallery: np.ndarray, queries: np.ndarray) -> None:
    index = create_index("exact")
    index.add(gallery)
    expected, results = index.search(queries, 5)[1], []
    threads = [threading.Thread(target=lambda: results.append(index.search(queries, 5)[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_specs_of_the_docstrings() -> None:
    assert parse_spec("faiss_cpu:IVF64,Flat?nprobe=8&ef_search=2") == (
        "faiss_cpu",
        {"factory": "IVF64,Flat", "nprobe": 8, "ef_search": 2},
    )
    assert parse_spec("exact") == ("exact", {})


def test_a_backend_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gallery: np.ndarray) -> None:
    (tmp_path / "my_search").mkdir()
    (tmp_path / "my_search" / "twin.py").write_text("from mt2st.index.exact import Index\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    index = create_index("my_search.twin?threads=1")
    index.add(gallery)
    assert len(index) == 400


def test_threads_of_the_product_are_limited_while_searching(
    gallery: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threadpoolctl import threadpool_info

    from mt2st.index import exact

    def blas_threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    monkeypatch.setattr(exact, "usable_threads", lambda: 64)
    index, seen, before = create_index("exact?threads=1"), [], blas_threads()
    index.add(gallery)
    search = exact.Index._search_blocks
    spy = staticmethod(lambda *arguments: (seen.append(blas_threads()), search(*arguments))[1])
    monkeypatch.setattr(exact.Index, "_search_blocks", spy)
    index.search(gallery, 5)
    assert seen == [{1}]
    assert blas_threads() == before


# -- other metrics, filters, removal -----------------------------------------------------------------------------------


def with_metric(spec: str, metric: str) -> VectorIndex:
    if "i8" in spec and metric != "cosine":
        pytest.skip("8-bit integers have a scale for the cosine alone")
    return ready(f"{spec}{'&' if '?' in spec else '?'}metric={metric}")


def scores_by_hand(metric: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    left, right = queries.astype(np.float64), gallery.astype(np.float64)
    if metric == "euclidean":
        return -np.linalg.norm(left[:, None] - right, axis=2)
    return cosines(queries, gallery) if metric == "cosine" else left @ right.T


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_other_metrics(spec: str, metric: str, gallery: np.ndarray, queries: np.ndarray, tmp_path: Path) -> None:
    """Rows of different lengths: the cosine's neighbours would be wrong here."""
    index = with_metric(spec, metric)
    items = gallery * np.random.default_rng(2).uniform(0.5, 2, (400, 1)).astype(np.float32)
    items[7] = 0
    index.add(items)
    truth = scores_by_hand(metric, queries, items)
    scores, ids = index.search(queries, 10)
    assert_sound(scores, ids, 30, 10, 400)
    best = np.argsort(-truth, axis=1)[:, :10]
    recall = np.mean([len(set(found) & set(true)) / 10 for found, true in zip(ids, best)])
    assert recall >= (0.2 if "PQ" in spec else 0.85)
    if "PQ" not in spec and "SQ8" not in spec:
        np.testing.assert_allclose(scores, np.take_along_axis(truth, ids, axis=1), atol=0.02, rtol=0.01)
    save_index(index, tmp_path / "index", "data")
    loaded = load_index(tmp_path / "index", "data")
    assert loaded.parameters["metric"] == metric
    np.testing.assert_array_equal(loaded.search(queries, 10)[1], ids)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_filters(spec: str, share: float, gallery: np.ndarray, queries: np.ndarray) -> None:
    index = ready(spec)
    index.add(gallery)
    allowed = np.random.default_rng(3).permutation(400) < share * 400
    scores, ids = index.search(queries, 5, allowed=allowed)
    assert_sound(scores, ids, 30, 5, 400)
    assert allowed[ids[ids >= 0]].all()
    truth = np.argsort(-np.where(allowed, cosines(queries, gallery), -np.inf), axis=1)[:, :5]
    found = [len((set(ours) - {-1}) & set(true[: int(allowed.sum())])) for ours, true in zip(ids, truth)]
    if "HNSW" not in spec or share > 0.01:  # FAISS's graph finds few of few: its search passes over what is not allowed
        assert np.mean(found) / min(5, allowed.sum()) >= (0.15 if "PQ" in spec else 0.85)
    nothing = index.search(queries, 5, allowed=np.zeros(400, np.bool_))[1]
    assert (nothing == -1).all()
    for wrong in (allowed[:399], allowed.astype(int), [True]):
        with pytest.raises(Mt2stError, match="give a bool for each of the 400 ids"):
            index.search(queries, 5, allowed=wrong)


def test_removed_items_never_come_back(spec: str, gallery: np.ndarray, queries: np.ndarray, tmp_path: Path) -> None:
    index = ready(spec)
    index.add(gallery)
    gone = np.arange(0, 400, 10)
    for wrong in ([400], [-1], [3, 3], [0.5], [[1]]):
        with pytest.raises(Mt2stError, match="remove: id"):
            index.remove(wrong)
    index.remove(gone[:20])
    index.remove(gone[20:])
    index.remove([])
    with pytest.raises(Mt2stError, match="id 20 is given twice or was removed"):
        index.remove([20, 21])
    assert len(index) == 360
    assert index.ids_given == 400
    left = np.ones(400, np.bool_)
    left[gone] = False
    truth = np.argsort(-np.where(left, cosines(queries, gallery), -np.inf), axis=1)[:, :10]
    save_index(index, tmp_path / "index", "data")
    for each in (index, load_index(tmp_path / "index", "data")):
        assert len(each) == 360
        np.testing.assert_array_equal(each.removed, gone)
        scores, ids = each.search(queries, 10)
        assert_sound(scores, ids, 30, 10, 400)
        assert not np.isin(ids, gone).any()
        recall = np.mean([len(set(found) & set(true)) / 10 for found, true in zip(ids, truth)])
        assert recall >= (0.25 if "PQ" in spec else 0.9)
        assert not np.isin(each.search(queries, 3, allowed=np.arange(400) % 2 == 0)[1], gone).any()
    if "CAGRA" not in spec:
        index.add(gallery[:5])  # ids go on where they were
        assert (index.search(gallery[1:2], 2)[1] != 0).all()
        if "PQ" not in spec:
            assert set(index.search(gallery[1:2], 2)[1][0]) == {1, 401}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_items=st.integers(1, 60),
    k=st.integers(1, 20),
    few=st.booleans(),
    metric=st.sampled_from(["cosine", "dot", "euclidean"]),
)
def test_of_equal_scores_exact_takes_the_lowest_ids(seed: int, num_items: int, k: int, few: bool, metric: str) -> None:
    """Small whole numbers: products are exact, so ties are too. Both ways through the search, against a stable sort."""
    from mt2st.index import exact

    rng = np.random.default_rng(seed)
    items, queries = rng.integers(-1, 2, (num_items, 3)), rng.integers(-1, 2, (4, 3))
    items[:, 0], queries[:, 0] = 1, 1
    if metric == "cosine":  # equal lengths, so that rounding is equal too
        items, queries = np.where(items == 0, 1, items), np.where(queries == 0, 1, queries)
    index = create_index("exact", metric=metric, threads=1)
    index.add(items.astype(np.float32))
    allowed = rng.random(num_items) < 0.7
    with pytest.MonkeyPatch.context() as patch:
        if not few:
            patch.setattr(exact, "_FEW_SCORES", 0)
            patch.setattr(exact, "_BLOCK_SCORES", 8)
        _, ids = index.search(queries.astype(np.float32), k)
        _, filtered = index.search(queries.astype(np.float32), k, allowed=allowed)
    truth = np.round(scores_by_hand(metric, queries, items), 9)
    for found, flags in ((ids, np.ones(num_items, np.bool_)), (filtered, allowed)):
        count = min(k, int(flags.sum()))
        expected = np.argsort(np.where(flags, -truth, np.inf), axis=1, kind="stable")[:, :count]
        np.testing.assert_array_equal(found[:, :count], expected)
        assert (found[:, count:] == -1).all()


def test_every_backend_declares_a_sweep_that_can_be_built(gallery: np.ndarray) -> None:
    for name in backend_names():
        backend = import_module(f"mt2st.index.{name}").Index
        for setting in [setting for along in SWEEPS for setting in backend.sweep(400, WIDTH, along)]:
            head, _, knobs = setting.partition("?")
            swept = [knob for knob in knobs.split("&") if "," in knob]
            assert len(swept) <= 1
            for knob in swept:
                assert knob.partition("=")[0] in backend.search_knobs
            if name in ("exact", "faiss_cpu"):
                create_index(f"{name}{head}").add(gallery)


@pytest.mark.gpu
@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat"])
def test_shards_on_several_gpus_find_what_one_finds(factory: str, gallery: np.ndarray, queries: np.ndarray) -> None:
    one = ready(f"faiss_gpu:{factory}?nprobe=16" if "IVF" in factory else f"faiss_gpu:{factory}")
    if one._faiss.get_num_gpus() < 2:
        pytest.skip("needs two GPUs")
    several = create_index("faiss_gpu", **one.parameters | {"gpus": 2})
    for index in (one, several):
        index.add(gallery)
    for ours, theirs in zip(one.search(queries, 10), several.search(queries, 10)):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.gpu
def test_cagra_finds_nearly_all_of_many(queries: np.ndarray) -> None:
    index = ready("faiss_gpu:CAGRA")
    items = np.random.default_rng(5).standard_normal((20_000, WIDTH)).astype(np.float32)
    index.add(items)
    truth = np.argsort(-cosines(queries, items), axis=1)[:, :10]
    _, ids = index.search(queries, 10)
    assert np.mean([len(set(found) & set(true)) / 10 for found, true in zip(ids, truth)]) > 0.95


def test_usearch_before_faiss_crashes_nothing() -> None:
    """In one process, usearch first: FAISS's factory died of a segmentation fault."""
    pytest.importorskip("usearch")
    pytest.importorskip("faiss")
    code = """
import numpy as np
from mt2st.index import create_index
rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
for spec in ("usearch", "faiss_cpu:IVF4,Flat"):
    index = create_index(spec)
    index.add(rows)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-500:]
