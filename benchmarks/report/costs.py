"""What a strategy's runs cost besides steps and FLOPs: one entry a column of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cost:
    """Something that a strategy's runs cost: a column of the table, left out where no row has a value.

    Attributes:
        name: its name in summary.json.
        head: the column's head.
        of: the run.json of a strategy's runs → the value; None where they do not hold it.
        text: the value → the cell.
    """

    name: str
    head: str
    of: Callable[[Sequence[Mapping[str, Any]]], float | None]
    text: Callable[[float], str]


def _recorded(runs: Sequence[Mapping[str, Any]], *path: str) -> list[Any]:
    """The values at `path` in the records, those that are there and not 0."""
    found = []
    for value in runs:
        for name in path:
            value = value.get(name) or {}
        found += [value] if value else []
    return found


def _listening_percent(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the training FLOPs, what schedules that listen took to measure."""
    shares = [
        100 * sum(value["flops"]["by_task"]["listening"].values()) / value["flops"]["total"]
        for value in runs
        if "listening" in value.get("flops", {}).get("by_task", {})
    ]
    return float(np.mean(shares)) if shares else None


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.0f}"


COSTS = (
    Cost("listening_percent", "listening %", _listening_percent, "{:.1f}".format),
    Cost(
        "train_seconds",
        "train s",
        lambda runs: float(np.mean(found)) if (found := _recorded(runs, "phases_seconds", "train")) else None,
        "{:.0f}".format,
    ),
    Cost(
        "peak_memory_bytes",
        "peak MB",
        lambda runs: max(_recorded(runs, "peak_memory_bytes"), default=None),
        _megabytes,
    ),
    Cost(
        "gpu_peak_memory_bytes",
        "GPU peak MB",
        lambda runs: max(_recorded(runs, "gpu_peak_memory_bytes"), default=None),
        _megabytes,
    ),
)
