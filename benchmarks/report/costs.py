"""What a strategy's runs cost besides steps and FLOPs: one entry a column of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Cost:
    """Something that a strategy's runs cost: a column of the table, left out where no row has a value.

    Attributes:
        name: its name in summary.json.
        head: the column's head.
        of: the run.json of a strategy's runs, and of full MTL's, which it is compared with → the value; None where they
            do not hold it.
        text: the value → the cell.
    """

    name: str
    head: str
    of: Callable[[Records, Records], float | None]
    text: Callable[[float], str]


def _recorded(runs: Records, *path: str) -> list[Any]:
    """The values at `path` in the records, those that are there and not 0."""
    found = []
    for value in runs:
        for name in path:
            value = value.get(name) or {}
        found += [value] if value else []
    return found


def _listening_percent(runs: Records, full: Records) -> float | None:
    """Of the training FLOPs, what schedules that listen took to measure."""
    shares = [
        100 * sum(value["flops"]["by_task"]["listening"].values()) / value["flops"]["total"]
        for value in runs
        if "listening" in value.get("flops", {}).get("by_task", {})
    ]
    return float(np.mean(shares)) if shares else None


def _mean(*path: str) -> Callable[[Records, Records], float | None]:
    """The mean of the values at `path`."""
    return lambda runs, full: float(np.mean(found)) if (found := _recorded(runs, *path)) else None


def _most(*path: str) -> Callable[[Records, Records], float | None]:
    return lambda runs, full: max(_recorded(runs, *path), default=None)


def _seconds_saved(runs: Records, full: Records) -> float | None:
    """1 − mean seconds of training / full MTL's; None for MTL itself, and without both."""
    own, whole = _recorded(runs, "phases_seconds", "train"), _recorded(full, "phases_seconds", "train")
    if not own or not whole or list(runs) == list(full):
        return None
    return 1 - float(np.mean(own)) / float(np.mean(whole))


def _teraflops(flops: float) -> str:
    return f"{flops / 1e12:.3g}"


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.0f}"


COSTS = (
    Cost("listening_percent", "listening %", _listening_percent, "{:.1f}".format),
    Cost("pretraining_flops", "pretraining TFLOPs", _mean("init_from", "flops"), _teraflops),
    Cost("validation_flops", "validation TFLOPs", _mean("flops", "validation"), _teraflops),
    Cost("optimiser_flops", "optimiser TFLOPs", _mean("flops", "optimiser"), _teraflops),
    Cost("train_seconds", "train s", _mean("phases_seconds", "train"), "{:.0f}".format),
    Cost("seconds_saved", "seconds saved", _seconds_saved, "{:.0%}".format),
    Cost("peak_memory_bytes", "peak MB", _most("peak_memory_bytes"), _megabytes),
    Cost("gpu_peak_memory_bytes", "GPU peak MB", _most("gpu_peak_memory_bytes"), _megabytes),
)
