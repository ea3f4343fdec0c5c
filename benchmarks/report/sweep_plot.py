"""The picture of a sweep: every setting's quality against its training FLOPs, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure

from benchmarks.report.spec import ReportSpec
from benchmarks.report.style import FRONT_COLOUR, looks
from benchmarks.report.tables import with_unit
from mt2st.files import atomic_path


class Point(Protocol):
    """One setting. Attributes: strategy; training FLOPs; value, unscaled."""

    @property
    def strategy(self) -> str: ...

    @property
    def flops(self) -> float: ...

    @property
    def value(self) -> float: ...


def sweep_picture(
    path: Path, points: Sequence[Point], front: Sequence[int], spec: ReportSpec, known: Sequence[str]
) -> None:
    """Draw the points by strategy, and the front, indices by rising FLOPs, as a line.

    `known` are the built-in strategies in the order of their table, which looks follow.
    """
    metric = spec.primary
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    look = looks([point.strategy for point in points], known)
    for strategy in dict.fromkeys(point.strategy for point in points):
        own = [point for point in points if point.strategy == strategy]
        colour, marker = look[strategy]
        axes.scatter(
            [point.flops / 1e12 for point in own],
            [point.value * metric.scale for point in own],
            color=colour,
            marker=marker,
            s=36,
            label=strategy,
            alpha=0.85,
            zorder=3,
        )
    axes.step(
        [points[index].flops / 1e12 for index in front],
        [points[index].value * metric.scale for index in front],
        where="post",
        color=FRONT_COLOUR,
        linewidth=1,
        label="Pareto front",
    )
    axes.set_xlabel("training TFLOPs")
    axes.set_ylabel(with_unit(metric))
    axes.set_title(f"{spec.title}: sweep", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
