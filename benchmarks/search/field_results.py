"""The results of a setting as ann-benchmarks keeps them, so that its own plots and metrics take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records.folder import slug
from benchmarks.search.data import SearchData
from benchmarks.search.hdf5 import DISTANCE_OF, write_results
from benchmarks.search.measure import Measured
from benchmarks.search.quality import field_distances


def write_field_results(folder: Path, data: SearchData, measured: Measured, row: Mapping[str, Any], k: int) -> Path:
    """Write one setting below `folder`, where ann-benchmarks looks: data set, k, algorithm, setting; batch mode."""
    best = float(measured.batch_seconds.min()) / len(data.queries)
    path = folder / slug(data.name) / f"{k}-batch" / slug(row["spec"].partition(":")[0].partition("?")[0])
    path = path / f"{slug(row['label'])}.hdf5"
    write_results(
        path,
        measured.ids,
        field_distances(data.metric, measured.similarities),
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
            "candidates": float((measured.ids >= 0).sum(axis=1).mean()),
            "run_count": len(measured.batch_seconds),
            "expect_extra": False,
        },
    )
    return path
