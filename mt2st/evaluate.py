"""Evaluation of image-text retrieval: exact ranks, or hit rates through an index.

    metrics = evaluate_retrieval(image_embeddings, text_embeddings, text_image_index)
    metrics["text_to_image/hit_rate@5"], metrics["image_to_text/median_rank"]

Keys are a direction, a slash and a metric of `mt2st.metrics.METRICS`. `hit_rate@k` is what CLIP papers call R@k;
`recall@k` is the share of an image's texts that are among the first k. Text → image has one relevant image a query, so
there the two are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mt2st.errors import Mt2stError
from mt2st.index import SearchIndex, create_index, empty_like
from mt2st.metrics.counting import tie_width
from mt2st.metrics.ranks import RetrievalRanks, checked_owner, retrieval_ranks
from mt2st.vectors import as_matrix, row_norms

__all__ = ["RetrievalRanks", "evaluate_retrieval", "hits_through_index", "rank_metrics", "retrieval_ranks"]

Ints = NDArray[np.int64]
IndexLike = str | SearchIndex | Callable[[], SearchIndex]

_QUERIES_AT_ONCE = 4096


def evaluate_retrieval(
    image_embeddings: Any,
    text_embeddings: Any,
    text_image_index: ArrayLike,
    ks: Sequence[int] = (1, 5, 10),
    index: IndexLike | None = None,
    *,
    workers: int = 1,
    scratch: Path | None = None,
) -> dict[str, float]:
    """Metrics of both directions by cosine similarity; memory grows with N + C, never with N × C.

    Ties are pessimistic: an item tied with a relevant one counts as ranked before it, so a constant embedding scores 0.
    An image without texts is part of the gallery, but no query.

    Args:
        image_embeddings: [N, E], NumPy or torch, float16 to float64, normalised as a copy; or the path of an `.npy`
            file, which is memory-mapped.
        text_embeddings: [C, E].
        text_image_index: [C], the image that text j belongs to; any number of texts an image.
        ks: cut-offs, whole numbers from 1.
        index: None ranks exactly, by counting. Otherwise search goes through an index: a text for `create_index`, a
            function that gives an empty index, or an index; one that holds the N images already is used as it is for
            text → image, and its like is built for the other direction. An index returns no ranks, so only hit rates
            and recalls are reported.
        workers: processes that rank exactly, each with one thread, to the same ranks for any number; 1 = this one.
        scratch: folder for files of several workers while they run, N × E × 4 bytes; None = the system's.

    Returns:
        `text_to_image/…` and `image_to_text/…` with `hit_rate@k`, `recall@k` and, without an index, `mrr`, `mean_rank`,
        `median_rank`.

    Raises:
        Mt2stError: NaN, infinite or zero vectors, unequal widths, no items, image numbers out of range, a cut-off below
            1, an index of other data, or an index with several workers.
    """
    cutoffs = _checked_cutoffs(ks)
    if index is None:
        ranks = retrieval_ranks(image_embeddings, text_embeddings, text_image_index, workers=workers, scratch=scratch)
        return rank_metrics(ranks, text_image_index, cutoffs)
    if workers != 1:
        raise Mt2stError(f"workers = {workers} rank exactly; leave workers out, or index")
    images = as_matrix("image_embeddings", image_embeddings)
    texts = as_matrix("text_embeddings", text_embeddings, width=images.shape[1])
    owner = checked_owner(text_image_index, len(texts), len(images))
    for name, matrix in (("image_embeddings", images), ("text_embeddings", texts)):
        row_norms(name, matrix)  # refuses what an index would refuse later, under the name that the caller knows
    over_images, over_texts = _indexes(index, len(images))
    if not len(over_images):
        over_images.add(images)
    over_texts.add(texts)
    # Which texts are queries of which relevant item: for text → image each text asks for its image, and the other way
    # round.
    to_image = hits_through_index(over_images, texts, images, np.arange(len(texts)), owner, cutoffs)
    to_text = hits_through_index(over_texts, images, texts, owner, np.arange(len(texts)), cutoffs)
    return {f"text_to_image/{key}": value for key, value in to_image.items()} | {
        f"image_to_text/{key}": value for key, value in to_text.items()
    }


def rank_metrics(
    ranks: RetrievalRanks, text_image_index: ArrayLike, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """The metrics that follow from stored ranks; see `evaluate_retrieval`."""
    owner = np.asarray(text_image_index.cpu() if hasattr(text_image_index, "cpu") else text_image_index)
    queries = ranks.image_to_text[ranks.image_to_text > 0]
    texts_per_image = np.bincount(owner, minlength=len(ranks.image_to_text))
    result = {}
    for direction, best in (("text_to_image", ranks.text_to_image), ("image_to_text", queries)):
        for k in _checked_cutoffs(ks):
            result[f"{direction}/hit_rate@{k}"] = float((best <= k).mean())
            if direction == "text_to_image":
                result[f"{direction}/recall@{k}"] = float((best <= k).mean())
            else:
                found = np.bincount(owner[ranks.image_to_text_each <= k], minlength=len(texts_per_image))
                result[f"{direction}/recall@{k}"] = float((found / np.maximum(texts_per_image, 1)).sum() / len(queries))
        result[f"{direction}/mrr"] = float((1.0 / best).mean())
        result[f"{direction}/mean_rank"] = float(best.mean())
        result[f"{direction}/median_rank"] = float(np.median(best))
    return result


def hits_through_index(
    index: SearchIndex, queries: Any, items: Any, asking: Ints, relevant: Ints, ks: Sequence[int]
) -> dict[str, float]:
    """`hit_rate@k` and `recall@k` of what an index returns, judged outside it.

    The scores of what it returns are computed here, in float64, and ranks among them are pessimistic: the index is
    asked for a few items more than k, so that an item tied with a relevant one pushes it back. Relevant items never
    count against each other.

    Args:
        index: an index that holds `items`.
        queries: [Q, E].
        items: [M, E], in the index's order of ids.
        asking: [R], the query of each pair of query and relevant item.
        relevant: [R], the item of each pair.
        ks: cut-offs.

    Raises:
        Mt2stError: the index holds another number of items, or returns ids that are no item's, or the same id twice.
    """
    query_rows, item_rows = as_matrix("queries", queries), as_matrix("items", items)
    if len(index) != len(item_rows):
        raise Mt2stError(
            f"the {index.backend} index holds {len(index)} items, the data {len(item_rows)}; build the index on this "
            "data"
        )
    query_norms, item_norms = row_norms("queries", query_rows), row_norms("items", item_rows)
    counts = np.bincount(asking, minlength=len(query_rows))  # relevant items a query
    most = int(counts.max())
    depth = min(len(item_rows), max(ks) + most)
    first_pair = np.cumsum(counts) - counts
    sorted_relevant = relevant[np.lexsort((relevant, asking))]
    hits, recalls = dict.fromkeys(ks, 0.0), dict.fromkeys(ks, 0.0)
    for start in range(0, len(query_rows), _QUERIES_AT_ONCE):
        _, ids = index.search(query_rows[start : start + _QUERIES_AT_ONCE], depth)
        check_ids(ids, len(item_rows), index.backend)
        for row in range(len(ids)):
            query = start + row
            if not counts[query]:
                continue
            found = ids[row][ids[row] >= 0]
            own = sorted_relevant[first_pair[query] : first_pair[query] + counts[query]]
            dots = item_rows[found].astype(np.float64) @ query_rows[query].astype(np.float64)
            scores = dots / (item_norms[found] * query_norms[query])
            mine = np.isin(found, own, assume_unique=True)
            foreign, best = np.sort(scores[~mine]), -np.sort(-scores[mine])
            ahead = len(foreign) - np.searchsorted(foreign, best - tie_width(item_rows.shape[1]), side="left")
            ranks = 1 + ahead + np.arange(len(best))
            for k in ks:
                hits[k] += bool(len(ahead)) and 1 + ahead[0] <= k
                recalls[k] += (ranks <= k).sum() / counts[query]
    asked = int((counts > 0).sum())
    return {f"hit_rate@{k}": float(hits[k] / asked) for k in ks} | {
        f"recall@{k}": float(recalls[k] / asked) for k in ks
    }


def check_ids(ids: Ints, num_items: int, backend: str) -> None:
    """Raise unless every row of `ids` holds distinct numbers of items, −1 aside.

    Duplicates have spoilt published numbers.
    """
    if ids.size and (ids.min() < -1 or ids.max() >= num_items):
        raise Mt2stError(
            f"the {backend} index returned ids from {ids.min()} to {ids.max()} for {num_items} items; it is broken: "
            "build it again"
        )
    ordered = np.sort(ids, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row = int(np.flatnonzero(twice.any(axis=1))[0])
        raise Mt2stError(
            f"the {backend} index returned an id twice in {int(twice.any(axis=1).sum())} results, first for query {row}"
        )


def _indexes(index: IndexLike, num_images: int) -> tuple[SearchIndex, SearchIndex]:
    """An index over the images (maybe filled already) and an empty one over the texts."""
    if isinstance(index, str):
        return create_index(index), create_index(index)
    if isinstance(index, SearchIndex):
        if len(index) not in (0, num_images):
            raise Mt2stError(
                f"the {index.backend} index holds {len(index)} items, but there are {num_images} images; give an empty "
                "index"
            )
        return index if len(index) else empty_like(index), empty_like(index)
    if callable(index):
        return index(), index()
    raise Mt2stError(
        f"index = {index!r} is a {type(index).__name__}; give an index, a spec such as 'faiss_cpu:Flat', or a function"
    )


def _checked_cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
    cutoffs = tuple(ks)
    if not cutoffs:
        raise Mt2stError("ks is empty; give at least one cut-off, such as (1, 5, 10)")
    for k in cutoffs:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise Mt2stError(f"ks: {k!r} is no cut-off; give whole numbers from 1")
    return tuple(int(k) for k in cutoffs)
