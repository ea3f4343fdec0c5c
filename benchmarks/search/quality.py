"""How good results are: judged here, from the ids alone.

Shape legend: N items, Q queries, E width, k results a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.data import SearchData
from mt2st.errors import Mt2stError
from mt2st.index import VectorIndex, create_index

# What ann-benchmarks' recall forgives: a result counts that is no farther than the k-th true neighbour and this much
# (github.com/erikbern/ann-benchmarks, plotting/metrics.py).
FIELD_TOLERANCE = 1e-3
_PAIRS_AT_ONCE = 1 << 20
_PROBED = 50  # queries whose given neighbours are compared with exact search

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """Exact search: ids and float64 similarities [Q, k] of the k best."""

    ids: Ints
    similarities: Doubles


def exact_truth(data: SearchData, k: int, index: VectorIndex | None = None) -> Truth:
    """The k best of every query, similarities computed anew in float64.

    They are those that the data name, where these are as many; a few of them are compared with exact search. Otherwise
    all are searched exactly. `index` is an exact one that holds the gallery; None = one is built.

    Raises:
        Mt2stError: the data name neighbours that are none.
    """
    if index is None:
        index = create_index("exact", metric=data.metric)
        index.add(data.gallery)
    given = data.neighbors
    if given is None or given.shape[1] < k:
        _, ids = index.search(data.queries, min(k, len(data.gallery)))
        return Truth(ids, similarities(data, ids))
    truth = Truth(given[:, :k], similarities(data, given[:, :k]))
    some = np.unique(np.linspace(0, len(given) - 1, min(len(given), _PROBED)).astype(np.int64))
    _, ids = index.search(np.asarray(data.queries[some]), k)
    best = similarities(data, ids, some)
    if (worse := np.flatnonzero(truth.similarities[some, -1] < best[:, -1] - _slack(best))).size:
        raise Mt2stError(
            f"{data.name}: the true neighbours of {data.origin.get('truth', 'the file')} are not the nearest by "
            f"{data.metric}, first for query {some[worse[0]]}; give --metric, or the truth of these very vectors"
        )
    return truth


def _slack(values: Doubles) -> Doubles:
    """What float32 may have rounded [Q]."""
    return 1e-4 * np.maximum(1.0, np.abs(values).max(axis=1))


def similarities(data: SearchData, ids: Ints, rows: Ints | None = None) -> Doubles:
    """float64 similarities [Q, k] of returned ids, by the data's metric; −∞ for id −1. `rows` = of these queries.

    They are cosines, inner products, or L2 distances with their sign turned.
    """
    result = np.full(ids.shape, -np.inf)
    step = max(1, _PAIRS_AT_ONCE // (ids.shape[1] * data.gallery.shape[1]))
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        items = data.gallery[part].astype(np.float64)  # [b, k, E]; id −1 takes the last row and is masked below
        asked = slice(start, start + step) if rows is None else rows[start : start + step]
        queries = np.asarray(data.queries[asked]).astype(np.float64)
        if data.metric == "euclidean":
            values = -np.linalg.norm(queries[:, None] - items, axis=2)
        else:
            values = np.einsum("qe,qke->qk", queries, items)
        if data.metric == "cosine":
            values /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(items, axis=2)
        result[start : start + step] = np.where(part >= 0, values, -np.inf)
    return result


def field_distances(metric: str, values: Doubles) -> Doubles:
    """Similarities as ann-benchmarks' distances: 1 − cosine, L2, or the inner product with its sign turned."""
    return 1 - values if metric == "cosine" else -values


def ann_recall(ids: Ints, truth: Ints) -> float:
    """Mean over queries of |ids ∩ truth| / k, as sets; both [Q, k] with distinct ids a row, −1 never counting."""
    # Shifting each row to its own range of numbers turns a row-wise intersection into one sorted search.
    span = int(max(ids.max(initial=0), truth.max(initial=0))) + 2
    offset = np.arange(len(ids))[:, None] * span
    return float(np.isin(np.where(ids >= 0, ids + offset, -1), truth + offset).sum() / truth.size)


def tolerant_recall(found: Doubles, truth: Doubles, tolerance: float) -> float:
    """Mean over queries of the share of k returned similarities that are at least the exact k-th less `tolerance`."""
    return float((found >= truth[:, -1:] - tolerance).mean())
