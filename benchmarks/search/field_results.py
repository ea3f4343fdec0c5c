"""The results of a setting as ann-benchmarks keeps them, so that its own plots and metrics take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records.folder import slug
from benchmarks.search.data import SearchData
from benchmarks.search.hdf5 import DISTANCE_OF, write_results
from benchmarks.search.quality import Doubles, Ints, field_distances


def write_field_results(
    folder: Path,
    data: SearchData,
    row: Mapping[str, Any],
    ids: Ints,
    similarities: Doubles,
    batch_seconds: Doubles,
) -> Path:
    """Write one setting below `folder`, where ann-benchmarks looks: data set, k, algorithm, setting; batch mode.

    Args:
        folder: the root of such results.
        data: what was searched.
        row: the setting as the record has it.
        ids: [Q, k].
        similarities: [Q, k] of these ids.
        batch_seconds: [repetitions], the time of all queries.
    """
    k = ids.shape[1]
    best = float(batch_seconds.min()) / len(data.queries)
    path = folder / slug(data.name) / f"{k}-batch" / slug(row["spec"].partition(":")[0].partition("?")[0])
    path = path / f"{slug(row['label'])}.hdf5"
    write_results(
        path,
        ids,
        field_distances(data.metric, similarities),
        np.full(len(data.queries), best),
        {
            "algo": row["spec"].partition("?")[0],
            "name": row["label"],
            "dataset": data.name,
            "distance": DISTANCE_OF[data.metric],
            "count": k,
            "batch_mode": True,
            "best_search_time": best,
            "build_time": row["cost"]["build_seconds"],
            "index_size": row["cost"]["index_bytes"] / 1024,
            "candidates": float((ids >= 0).sum(axis=1).mean()),
            "run_count": len(batch_seconds),
            "expect_extra": False,
        },
    )
    return path
