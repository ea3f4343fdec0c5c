"""Retrieval evaluation against a slow twin that builds the whole float64 matrix."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt2st.errors import Mt2stError
from mt2st.evaluate import evaluate_retrieval, hits_through_index, rank_metrics, retrieval_ranks
from mt2st.index import create_index
from mt2st.metrics import counting, metric_definition
from mt2st.metrics.counting import tie_width


def slow_metrics(
    images: np.ndarray, texts: np.ndarray, owner: np.ndarray, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, float]:
    """Everything from the full matrix, one query at a time, by the definitions."""
    left, right = texts.astype(np.float64), images.astype(np.float64)
    scores = left @ right.T / (np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1))
    tie = tie_width(images.shape[1])
    result: dict[str, float] = {}
    for direction, matrix, relevant in (
        ("text_to_image", scores, [[image] for image in owner]),
        ("image_to_text", scores.T, [np.flatnonzero(owner == image).tolist() for image in range(len(images))]),
    ):
        best, recalls = [], {k: [] for k in ks}
        for row, own in zip(matrix, relevant):
            if not own:
                continue
            foreign = np.delete(row, own)
            ranks = [
                1 + place + int((foreign >= score - tie).sum())
                for place, score in enumerate(sorted(row[own], reverse=True))
            ]
            best.append(ranks[0])
            for k in ks:
                recalls[k].append(sum(rank <= k for rank in ranks) / len(own))
        for k in ks:
            result[f"{direction}/hit_rate@{k}"] = float(np.mean(np.array(best) <= k))
            result[f"{direction}/recall@{k}"] = float(np.mean(recalls[k]))
        result[f"{direction}/mrr"] = float(np.mean(1 / np.array(best)))
        result[f"{direction}/mean_rank"] = float(np.mean(best))
        result[f"{direction}/median_rank"] = float(np.median(best))
    return result


def some_embeddings(
    seed: int, num_images: int, num_texts: int, width: int, noise: float = 1.5
) -> tuple[np.ndarray, ...]:
    """Texts scattered around their images; some images have no text, some texts are copies of others."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((num_images, width)).astype(np.float32)
    owner = rng.integers(0, num_images, num_texts)
    texts = (images[owner] + noise * rng.standard_normal((num_texts, width))).astype(np.float32)
    texts[: num_texts // 4] = texts[num_texts // 4 : 2 * (num_texts // 4)]
    return images, texts, owner


def assert_same(ours: dict[str, float], twin: dict[str, float]) -> None:
    assert ours.keys() == twin.keys()
    for key, value in twin.items():
        assert ours[key] == pytest.approx(value, abs=1e-9), key


def test_the_example_of_the_docstring() -> None:
    """Two images and four captions with the scores of `mt2st/metrics/ranks.py`, made of unit vectors in three
    dimensions.
    """
    wanted = np.array([[0.9, 0.2], [0.4, 0.5], [0.3, 0.8], [0.1, 0.1]])
    texts = np.column_stack([wanted, np.sqrt(1 - (wanted**2).sum(axis=1))])
    ranks = retrieval_ranks(np.eye(2, 3), texts, np.array([0, 0, 1, 1]))
    assert ranks.text_to_image.tolist() == [1, 2, 1, 2]
    assert ranks.image_to_text.tolist() == [1, 1]
    assert ranks.image_to_text_each.tolist() == [1, 2, 1, 4]


@pytest.mark.parametrize(
    ("num_images", "num_texts", "width"), [(1, 1, 1), (1, 6, 4), (40, 7, 3), (150, 900, 16), (900, 150, 8)]
)
def test_equals_the_full_matrix(num_images: int, num_texts: int, width: int) -> None:
    arrays = some_embeddings(0, num_images, num_texts, width)
    assert_same(evaluate_retrieval(*arrays), slow_metrics(*arrays))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 30),
    st.integers(1, 60),
    st.integers(1, 5),
    st.sampled_from(["f2", "f4", "f8"]),
)
def test_equals_the_full_matrix_on_lattices(seed: int, num_images: int, num_texts: int, width: int, kind: str) -> None:
    """Small whole numbers: scores full of exact ties, and of ties up to rounding (2x has the direction of x)."""
    rng = np.random.default_rng(seed)
    images, texts = (rng.integers(-2, 3, (count, width)).astype(kind) for count in (num_images, num_texts))
    images[~images.any(axis=1)], texts[~texts.any(axis=1)] = 1, 1
    owner = rng.integers(0, num_images, num_texts)
    assert_same(evaluate_retrieval(images, texts, owner, ks=(1, 3)), slow_metrics(images, texts, owner, ks=(1, 3)))


def test_blocks_tiles_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = some_embeddings(1, 70, 200, 12)
    twin = slow_metrics(*arrays)
    for texts, images, tile, sparse in ((64, 48, 7, 0.0), (33, 64, 32, 1.0), (7, 8, 3, 0.03)):
        for name, value in (
            ("BLOCK_TEXTS", texts),
            ("BLOCK_IMAGES", images),
            ("TILE_TEXTS", tile),
            ("_SPARSE_SHARE", sparse),
        ):
            monkeypatch.setattr(counting, name, value)
        for threads in (1, 3):
            assert_same(rank_metrics(retrieval_ranks(*arrays, threads=threads), arrays[2]), twin)


@pytest.mark.parametrize("dense_share", [0.0, 1.0])
def test_near_ties_below_float32_resolution(monkeypatch: pytest.MonkeyPatch, dense_share: float) -> None:
    """Scores that differ by 1e-9 only: float32 cannot order them, float64 can. Both ways of settling are driven."""
    monkeypatch.setattr(counting, "_DENSE_SHARE", dense_share)
    rng = np.random.default_rng(2)
    base = rng.standard_normal(16)
    images = base + 1e-9 * rng.standard_normal((60, 16))
    texts = base + 1e-9 * rng.standard_normal((200, 16))
    owner = rng.integers(0, 60, 200)
    # Cosines of almost parallel vectors differ by 1e-18: ties. A shifted base makes the differences first order.
    texts = texts + 10 * rng.standard_normal(16)
    assert_same(evaluate_retrieval(images, texts, owner), slow_metrics(images, texts, owner))
    ranks = retrieval_ranks(images, texts, owner)
    assert len(np.unique(ranks.text_to_image)) > 30, "the test must not consist of ties"


@pytest.mark.parametrize("index", [None, "exact", "faiss_cpu:Flat"])
def test_a_constant_embedding_scores_zero(index: str | None) -> None:
    rng = np.random.default_rng(3)
    vector = rng.standard_normal(48).astype(np.float32)
    owner = np.repeat(np.arange(300), 5)
    scales = rng.uniform(0.5, 2, (300, 1)).astype(np.float32)  # one direction, 300 lengths
    metrics = evaluate_retrieval(vector * scales, np.tile(vector, (1500, 1)), owner, index=index)
    assert {key: value for key, value in metrics.items() if "@" in key and value != 0.0} == {}
    if index is None:
        assert metrics["text_to_image/mean_rank"] == 300
        assert metrics["image_to_text/median_rank"] == 1500 - 5 + 1


def test_relevant_items_do_not_count_against_each_other() -> None:
    """An image with 20 perfect captions: all of them are relevant, the best has rank 1, the m-th rank m."""
    texts = np.array([[1.0, 0.0]] * 20 + [[0.0, 1.0]])
    ranks = retrieval_ranks(np.eye(2), texts, np.array([0] * 20 + [1]))
    assert ranks.image_to_text.tolist() == [1, 1]
    assert ranks.image_to_text_each[:20].tolist() == list(range(1, 21))


def test_images_without_text_are_gallery_but_no_query() -> None:
    ranks = retrieval_ranks(np.eye(3), np.array([[0.9, 0.1, 0.0]]), np.array([1]))
    assert ranks.text_to_image.tolist() == [2]
    assert ranks.image_to_text.tolist() == [0, 1, 0]
    assert evaluate_retrieval(np.eye(3), np.array([[0.9, 0.1, 0.0]]), [1])["image_to_text/hit_rate@1"] == 1.0


def test_one_image_with_most_texts() -> None:
    images, texts, owner = some_embeddings(4, 50, 400, 8)
    owner[:300] = 7
    assert_same(evaluate_retrieval(images, texts, owner), slow_metrics(images, texts, owner))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_types_strides_and_tensors(kind: type) -> None:
    import torch

    images, texts, owner = some_embeddings(5, 60, 200, 8)
    images, texts = images.astype(kind), texts.astype(kind)
    twin = slow_metrics(images, texts, owner)
    wide = np.zeros((200, 16), kind)
    wide[:, ::2] = texts
    assert_same(evaluate_retrieval(np.asfortranarray(images), wide[:, ::2], owner), twin)
    assert_same(evaluate_retrieval(torch.from_numpy(images), torch.from_numpy(texts), torch.from_numpy(owner)), twin)


def test_bfloat16_tensors() -> None:
    import torch

    images, texts, owner = some_embeddings(6, 30, 90, 8)
    halves = [torch.from_numpy(array).bfloat16() for array in (images, texts)]
    twin = slow_metrics(*[half.float().numpy() for half in halves], owner)
    assert_same(evaluate_retrieval(*halves, owner), twin)


def test_the_callers_arrays_stay_as_they_are() -> None:
    arrays = some_embeddings(7, 30, 90, 8)
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    evaluate_retrieval(*arrays)
    evaluate_retrieval(*arrays, index="exact")
    for array, copy in zip(arrays, copies):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("constant", [False, True])
def test_memory_does_not_grow_with_images_times_texts(constant: bool) -> None:
    """4,000 × 4,000 scores in float32 are 64 MB, 4,000 × 16,000 are 256 MB.

    Ours grows by what the longer inputs take.
    """
    peaks = []
    for num_texts in (4_000, 16_000):
        images, texts, owner = some_embeddings(8, 150 if constant else 4_000, num_texts, 8)
        if constant:
            images[:], texts[:] = 1, 1
        tracemalloc.start()
        retrieval_ranks(images, texts, owner, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 25e6, peaks
    assert max(peaks) < 60e6, peaks


def test_every_index_finds_the_same_hits() -> None:
    arrays = some_embeddings(9, 200, 900, 16)
    exact = evaluate_retrieval(*arrays)
    for index in (
        "exact",
        "faiss_cpu:Flat",
        lambda: create_index("faiss_cpu:IVF4,Flat?nprobe=4"),
        create_index("exact"),
    ):
        through = evaluate_retrieval(*arrays, index=index)
        assert_same(through, {key: exact[key] for key in through})
        assert set(through) == {key for key in exact if "@" in key}


def test_a_filled_index_is_used_as_it_is() -> None:
    images, texts, owner = some_embeddings(10, 100, 300, 8)
    index = create_index("exact")
    index.add(images[::-1])  # a gallery in another order: the hits must be lost
    assert evaluate_retrieval(images, texts, owner, index=index)["text_to_image/hit_rate@1"] < 0.1
    with pytest.raises(Mt2stError, match="holds 100 items"):
        evaluate_retrieval(images[:50], texts[:10], np.zeros(10, int), index=index)


def test_a_lossy_index_loses_hits() -> None:
    arrays = some_embeddings(11, 500, 1500, 16, noise=0.7)
    exact, lossy = evaluate_retrieval(*arrays), evaluate_retrieval(*arrays, index="faiss_cpu:IVF64,Flat?nprobe=1")
    assert lossy["text_to_image/hit_rate@5"] < exact["text_to_image/hit_rate@5"]


class Liar:
    """An index that breaks its word."""

    backend = "liar"
    parameters: dict = {}  # noqa: RUF012
    index_bytes = 0

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return 3

    def add(self, embeddings: object) -> None: ...

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(queries), len(self.ids)), np.float32), np.tile(self.ids, (len(queries), 1))


@pytest.mark.parametrize(("ids", "words"), [([0, 0], "twice"), ([0, 3], "0 to 3"), ([-2, 1], "-2 to 1")])
def test_ids_are_checked_outside_the_index(ids: list[int], words: str) -> None:
    with pytest.raises(Mt2stError, match=words):
        hits_through_index(Liar(ids), np.eye(3), np.eye(3), np.arange(3), np.arange(3), (1,))


def test_missing_ids_are_no_hits() -> None:
    hits = hits_through_index(Liar([1, -1]), np.eye(3), np.eye(3), np.arange(3), np.arange(3), (1, 2))
    assert hits["hit_rate@1"] == pytest.approx(1 / 3)


def test_every_key_has_a_definition() -> None:
    for key in evaluate_retrieval(*some_embeddings(12, 5, 9, 3)):
        metric_definition(key)


GOOD = (np.eye(3), np.eye(3), np.arange(3))


def broken(row: int, value: float) -> np.ndarray:
    matrix = np.eye(3)
    matrix[row] = value
    return matrix


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({0: broken(1, np.nan)}, "image_embeddings has NaN or infinite.*row 1"),
        ({1: broken(2, np.inf)}, "text_embeddings has NaN or infinite.*row 2"),
        ({1: broken(0, 0.0)}, "text_embeddings has 1 zero vectors.*row 0"),
        ({1: np.eye(3, 4)}, "4 wide, but 3"),
        ({0: np.empty((0, 3))}, "0 images"),
        ({1: np.empty((0, 3)), 2: np.empty(0, int)}, "0 texts"),
        ({0: np.ones(3)}, "shape"),
        ({0: np.eye(3, dtype=int)}, "type int64"),
        ({0: [[1.0, 0, 0]]}, "list"),
        ({2: np.array([0, 1, 3])}, r"text_image_index\[2\] = 3"),
        ({2: np.array([0, -1, 1])}, r"text_image_index\[1\] = -1"),
        ({2: np.array([0, 1])}, "3 whole numbers"),
        ({2: np.array([0.0, 1.0, 2.0])}, "whole numbers"),
    ],
)
@pytest.mark.parametrize("index", [None, "exact"])
def test_bad_input(changes: dict[int, object], words: str, index: str | None) -> None:
    arguments = [changes.get(place, value) for place, value in enumerate(GOOD)]
    with pytest.raises(Mt2stError, match=words):
        evaluate_retrieval(*arguments, index=index)


@pytest.mark.parametrize("ks", [(), (0,), (1.5,), (True,), (-1, 5)])
def test_bad_cutoffs(ks: tuple) -> None:
    with pytest.raises(Mt2stError, match="ks"):
        evaluate_retrieval(*GOOD, ks=ks)


def test_bad_index() -> None:
    with pytest.raises(Mt2stError, match="index = 3"):
        evaluate_retrieval(*GOOD, index=3)
    with pytest.raises(Mt2stError, match="did you mean 'exact'"):
        evaluate_retrieval(*GOOD, index="exat")


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images, texts, owner = some_embeddings(13, 150, 900, 16)
    ours = evaluate_retrieval(torch.from_numpy(images).cuda(), torch.from_numpy(texts).cuda(), owner)
    assert_same(ours, slow_metrics(images, texts, owner))


def test_the_gpu_path_counts_alike_on_the_cpu() -> None:
    """The torch code of the GPU path, run where there is no GPU."""
    import torch

    from mt2st.metrics.counting import Gallery, count_competitors
    from mt2st.metrics.ranks_cuda import competitors_on_gpu
    from mt2st.vectors import row_norms

    images, texts, owner = some_embeddings(14, 70, 400, 8)
    theirs = competitors_on_gpu(torch.from_numpy(images), torch.from_numpy(texts), owner)
    ours = count_competitors(Gallery(images, row_norms("a", images), texts, row_norms("b", texts), owner))
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-12)
    np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_array_equal(ours[2], theirs[2])
    for wrong, words in ((broken(1, np.nan), "NaN"), (broken(1, 0.0), "zero"), (np.eye(3, 4), "wide")):
        with pytest.raises(Mt2stError, match=words):
            competitors_on_gpu(torch.eye(3), torch.from_numpy(wrong), np.arange(3))
