"""`model.json` of a finished run, by which `mt2st.load` makes its model again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Loadable, load_card
from benchmarks.records.folder import RunFolder
from benchmarks.report.spec import ReportSpec
from benchmarks.report.statistics import bootstrap
from mt2st.encoders.architecture import IMAGE, TEXT, write_architecture
from mt2st.trained.description import TOWERS_FOLDER, write_description

_SIDES = {"image": (IMAGE,), "text": (TEXT,)}  # of kinds that have one
_DATA = ("name", "revision", "licence", "content_hash")


def describe_model(
    folder: RunFolder, model: Loadable, record: Mapping[str, Any], items: Mapping[str, np.ndarray]
) -> None:
    """Write `model.json` into a run's folder that holds its weights and the model's other files.

    Args:
        items: per-item arrays of the test, from which the intervals of its metrics come.
    """
    identity = folder.identity
    if model.checkpoint:
        write_architecture(model.checkpoint, folder.path / TOWERS_FOLDER, _SIDES.get(model.kind, (IMAGE, TEXT)))
    write_description(
        folder.path,
        model.kind,
        model.build,
        weights=str(record["weights"]["file"]),
        files=_files(folder.path, model.files),
        about={
            **{name: identity[name] for name in ("run_id", "benchmark", "recipe", "strategy", "seed")},
            "schedules": dict(record["schedules"]),
            "steps": record["steps"],
            "training_flops": record["flops"]["total"],
            "parameters": record["model"]["parameters"],
            "data": {name: record["data"][name] for name in _DATA if name in record["data"]},
            "intervals": item_intervals(load_card(identity["benchmark"]).spec, items),
            "test": {name: value for name, value in record["metrics"]["test"].items() if value == value},
        },
    )


def _files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that are there, and all files of the towers' folder."""
    towers = [path.relative_to(folder).as_posix() for path in (folder / TOWERS_FOLDER).rglob("*") if path.is_file()]
    return [*(name for name in names if (folder / name).is_file()), *towers]


def item_intervals(spec: ReportSpec, items: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Metric id → its 95 % interval over the test's items, or clusters of them; metrics without items have none."""
    found: dict[str, dict[str, Any]] = {}
    for metric in (spec.primary, *spec.columns):
        if not metric.arrays or any(name not in items for name in metric.arrays):
            continue
        arrays = [items[name] for name in metric.arrays]
        values = arrays if metric.transform is None else [np.asarray(metric.transform(*arrays))]
        clusters = items.get(metric.cluster)
        if clusters is not None and len(clusters) != len(values[0]):
            clusters = None  # items of another kind
        if len(np.unique(clusters) if clusters is not None else values[0]) < 2:
            continue  # nothing says how items vary
        interval = bootstrap([values], metric.statistic, clusters=clusters)
        if math.isfinite(interval.low) and math.isfinite(interval.high):
            over = {"over": interval.over, "count": interval.clusters}
            found[metric.id] = {"low": interval.low, "high": interval.high, "confidence": 0.95, **over}
    return found
