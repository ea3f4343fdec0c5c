"""Filters and updates: recall and speed among a share of the items, and after a tenth of them was replaced.

The items allowed or replaced are drawn at random, by a seed. Truth is exact search over the same items.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.data import SearchData
from benchmarks.search.quality import Truth, ann_recall, similarities, tolerant_recall
from mt2st.errors import Mt2stError
from mt2st.index import VectorIndex, create_index

SHARES = (0.5, 0.1, 0.01)
REPLACED = 0.1
_SINGLE_CALLS = 20
_SINGLE_SECONDS = 5.0


def exact_index(data: SearchData) -> VectorIndex:
    """What filtered truth is asked of; built once a run."""
    index = create_index("exact", metric=data.metric)
    index.add(data.gallery)
    return index


def filtered(
    index: VectorIndex, searched: SearchData, data: SearchData, exact: VectorIndex, k: int, seed: int, queries: int
) -> list[dict[str, float]]:
    """For each share: recall among the allowed, queries a second in a batch, and the median of single queries.

    Args:
        index: holds `searched`'s gallery.
        searched: the data as the index has them, perhaps with fewer dimensions.
        data: the data that judge.
        exact: holds `data`'s gallery.
        k: results a query.
        seed: of the items allowed.
        queries: how many are asked, the first ones.
    """
    some = replace(data, queries=data.queries[:queries])
    asked = np.asarray(searched.queries[:queries])
    order = np.random.default_rng(seed).permutation(len(data.gallery))
    found = []
    for share in SHARES:
        allowed = order < max(k, round(share * len(order)))
        truth_ids = exact.search(np.asarray(some.queries), k, allowed=allowed)[1]
        truth = Truth(truth_ids, similarities(some, truth_ids))
        started = time.perf_counter()
        ids = index.search(asked, k, allowed=allowed)[1]
        seconds = time.perf_counter() - started
        if not allowed[ids[ids >= 0]].all():
            raise Mt2stError(f"the {index.backend} index returned items that the filter does not allow")
        single = _single(index, asked, k, allowed)
        found.append(
            {
                "share": share,
                f"ann_recall@{k}": ann_recall(ids, truth.ids),
                f"ann_recall_tolerant@{k}": tolerant_recall(similarities(some, ids), truth.similarities, 1e-4),
                "batch_queries_per_second": len(asked) / seconds,
                "single_p50_seconds": float(np.median(single)),
            }
        )
    return found


def updated(
    index: VectorIndex, searched: SearchData, data: SearchData, truth: Truth, k: int, seed: int, queries: int
) -> dict[str, float]:
    """A tenth of the items removed, then inserted again under new ids: recall and speed before and after.

    The content stays the same, so truth does too. `searchable_seconds` is the time from handing in the new items until
    a search finds the last one.

    Raises:
        Mt2stError: the backend cannot remove or insert.
    """
    asked = np.asarray(searched.queries[:queries])
    some = replace(data, queries=data.queries[:queries])
    right = Truth(truth.ids[:queries], truth.similarities[:queries])
    before = _judged(index, asked, some, right, k, None)
    count = len(searched.gallery)
    gone = np.sort(np.random.default_rng(seed).permutation(count)[: max(1, round(REPLACED * count))])
    started = time.perf_counter()
    index.remove(gone)
    removing = time.perf_counter() - started
    if np.isin(index.search(asked, k)[1], gone).any():
        raise Mt2stError(f"the {index.backend} index returned items that were removed")
    first = index.ids_given
    again = np.ascontiguousarray(searched.gallery[gone])
    started = time.perf_counter()
    index.add(again)
    inserting = time.perf_counter() - started
    last = again[-1:]
    while first + len(gone) - 1 not in index.search(last, k)[1] and time.perf_counter() - started < _SINGLE_SECONDS:
        time.sleep(0.001)
    searchable = time.perf_counter() - started
    after = _judged(index, asked, some, right, k, np.concatenate([np.arange(first), gone]))
    return {
        "replaced_items": float(len(gone)),
        "remove_seconds": removing,
        "insert_seconds": inserting,
        "searchable_seconds": searchable,
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
    }


def _judged(
    index: VectorIndex,
    asked: NDArray[Any],
    data: SearchData,
    truth: Truth,
    k: int,
    item_of: NDArray[np.int64] | None,
) -> dict[str, float]:
    """Recall and queries a second now; `item_of` [ids given] says which item of the gallery an id is."""
    started = time.perf_counter()
    ids = index.search(asked, k)[1]
    seconds = time.perf_counter() - started
    if item_of is not None:
        ids = np.where(ids >= 0, item_of[ids], -1)
    found = tolerant_recall(similarities(data, ids), truth.similarities, 1e-4)
    return {f"ann_recall_tolerant@{k}": found, "batch_queries_per_second": len(asked) / seconds}


def _single(index: VectorIndex, asked: NDArray[Any], k: int, allowed: NDArray[np.bool_]) -> list[float]:
    taken: list[float] = []
    for row in range(min(_SINGLE_CALLS, len(asked))):
        started = time.perf_counter()
        index.search(asked[row : row + 1], k, allowed=allowed)
        taken.append(time.perf_counter() - started)
        if sum(taken) > _SINGLE_SECONDS and len(taken) >= 3:
            break
    return taken
