"""`python -m benchmarks growth`: what a step, a report and a preparation cost as they grow.

Each size is measured in a process of its own, small to large and round by round, so that a drift of the machine's speed
meets all sizes. Of each size the least processor seconds count. The exponent p of a curve, seconds ∝ size^p, is the
slope of log seconds over log size on its larger half, where fixed costs matter least. It is set beside the exponent of
the work: FLOPs for a step, and the number of runs or images otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.report.figures import figure_of, save, style
from benchmarks.speed.lines import Comparison, Line, in_process
from benchmarks.speed.options import GrowthOptions
from mt2st.errors import Mt2stError

_WORKER = "benchmarks.speed.growth_worker"
_TOLERANCE = 0.15  # of an exponent: caches and threads bend a curve by that much
# curve → (what the worker calls its size, sizes, what grows)
CURVES: Mapping[str, tuple[str, tuple[int, ...], str]] = {
    "batch": ("images", (8, 16, 32, 64, 128, 256, 512), "a step against images a batch"),
    "image": ("image_size", (16, 32, 64, 128, 256), "a step against the side of images, px"),
    "vocabulary": ("answers", (13, 100, 1_000, 10_000, 100_000), "a step against possible answers"),
    "auxiliaries": ("auxiliaries", (1, 2, 4, 8), "a step against auxiliaries"),
    "report": ("runs", (10, 30, 100, 300, 1_000), "a report against runs"),
    "prepare": ("images", (1_000, 10_000, 100_000, 1_000_000), "preparing against images of 32 px"),
}


def measure(options: GrowthOptions) -> int:
    """Measure, fit, print and write the record; returns 0 if nothing grows faster than its work, else 1."""
    console = Console()
    comparison = Comparison("growth", "Cost as it grows", options, options.results)
    for curve in options.curves:
        console.print(f"measuring: {curve}", highlight=False)
        points = measured(curve, options)
        comparison.keep(curve, points, curve_lines(curve, points))
        picture(comparison.record["measurements"], comparison.folder / "growth.png")
    return comparison.show(console)


def measured(curve: str, options: GrowthOptions) -> list[dict[str, Any]]:
    """A row a size: the size, its work, the least seconds, processor seconds and peak memory, and all repetitions."""
    size_name, sizes, _ = CURVES[curve]
    wanted = [size for size in sizes if size <= options.largest * sizes[-1]]
    if len(wanted) < 2:
        raise Mt2stError(f"--largest = {options.largest} leaves {len(wanted)} sizes of {curve}; a curve needs two")
    task = curve if curve in ("report", "prepare") else "step"
    repetitions = 1 if curve == "prepare" else options.repetitions
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in wanted}
    for _ in range(repetitions):
        for size in wanted:
            runs[size].append(in_process(_WORKER, task, {size_name: size, "threads": options.threads}))
    return [
        {
            "size": size,
            **{name: min(run[name] for run in found) for name in found[0]},
            "repetitions": found,
        }
        for size, found in runs.items()
    ]


def curve_lines(curve: str, points: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The table's lines of a curve: the exponents of time and memory beside that of the work, and its ends."""
    what = CURVES[curve][2]
    time, memory, work = (exponent(points, name) for name in ("processor_seconds", "peak_bytes", "work"))
    first, last = points[0], points[-1]
    sizes = f"{first['size']:,} … {last['size']:,}"
    seconds = f"{1000 * first['processor_seconds']:.3g} … {1000 * last['processor_seconds']:.3g}"
    peak = f"{first['peak_bytes'] / 1e6:.0f} … {last['peak_bytes'] / 1e6:.0f}"
    return [
        Line(
            f"{what}: exponent of processor seconds, work's beside it",
            f"{time:.2f}, {work:.2f}",
            f"≤ {work:.2f} + {_TOLERANCE}",
            time <= work + _TOLERANCE,
        ),
        Line(f"{what}: exponent of peak memory", f"{memory:.2f}"),
        Line(f"{what} ({sizes}): ms of a processor; peak MB", f"{seconds}; {peak}"),
    ]


def picture(curves: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Both axes are logarithmic. A line is as steep as its exponent; the dashed one is as steep as the work's."""
    rows = -(-len(curves) // 3)
    with style():
        figure = figure_of(10.0, 2.9 * rows)
        for place, (curve, points) in enumerate(curves.items(), 1):
            axes = figure.add_subplot(rows, 3, place)
            sizes, seconds, work = (
                np.array([point[key] for point in points]) for key in ("size", "processor_seconds", "work")
            )
            half = _larger_half(sizes)
            axes.loglog(sizes, seconds, marker="o")
            axes.loglog(half, work[-len(half) :] / work[-1] * seconds[-1], ls="--", color="#777777")
            slopes = [exponent(points, name) for name in ("processor_seconds", "work")]
            axes.minorticks_off()
            axes.set_xticks(sizes, [_short(size) for size in sizes], fontsize=8)
            axes.set_yticks(seconds[[0, -1]], [f"{value:.3g}" for value in seconds[[0, -1]]])
            axes.set_title(f"{curve}: {slopes[0]:.2f} (work {slopes[1]:.2f})")
            axes.set_xlabel(CURVES[curve][2].split(" against ")[1])
            axes.set_ylabel("processor seconds")
        save(figure, path)


def exponent(points: Sequence[Mapping[str, Any]], name: str) -> float:
    """Slope of log `name` over log size on the larger half of the points, at least two."""
    size, value = (np.log([point[key] for point in _larger_half(points)]) for key in ("size", name))
    return float(np.polyfit(size, value, 1)[0])


def _short(size: int) -> str:
    return f"{size:,}".replace(",000,000", "M").replace(",000", "k")


def _larger_half(points: Any) -> Any:
    return points[-max(2, -(-len(points) // 2)) :]
