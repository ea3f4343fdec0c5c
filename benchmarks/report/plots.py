"""Pictures of a summary: drawn without a display, readable without colour (each strategy has its own marker)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from benchmarks.records.read import RunRecord
from benchmarks.report.cells import flops_unit, in_unit
from benchmarks.report.figures import figure_of, safe, save, style
from benchmarks.report.rows import Row, Summary, curve_of
from benchmarks.report.spec import Metric, ReportSpec
from benchmarks.report.style import FRONT_COLOUR, Look, looks
from benchmarks.report.views import view_title

_GREY = "#777777"
_LINE_INCHES, _AROUND_INCHES = 0.17, 1.4  # height of a line of small print, and of what lies around the axes
_LETTERS = 62  # of small print in a line of the left picture


def view_picture(summary: Summary, runs: Sequence[RunRecord], spec: ReportSpec, view: str, path: Path) -> None:
    """Left: the primary metric with its interval and every seed. Right: validation metric against training FLOPs."""
    rows = [row for row in summary.of_view(view) if row.primary is not None]
    with style():
        figure = figure_of(11.0, max(3.4, 1.9 + 0.5 * len(rows)))
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
        _intervals(left, summary, rows, spec.primary)
        _curves(right, summary, rows, [run for run in runs if view in run.views], spec)
        title = wrap(f"{spec.title.rstrip('.')}. {view_title(view)}", 115)
        figure.suptitle(safe("\n".join(title)), x=0.01, ha="left", fontsize=12)
        save(figure, path)


def cost_picture(summary: Summary, spec: ReportSpec, path: Path) -> None:
    """The primary metric against training FLOPs: every strategy in every view, and the Pareto front of their means."""
    rows = [row for row in summary.rows if row.primary is not None and row.flops is not None]
    metric, unit = spec.primary, flops_unit([row.flops for row in rows])
    with style():
        figure = figure_of(8.0, 4.6)
        axes = figure.subplots()
        front = [summary.rows[index] for index in summary.front]
        line = [(in_unit(row.flops or 0.0, unit), row.primary.estimate * metric.scale) for row in front if row.primary]
        axes.step(
            [x for x, _ in line],
            [y for _, y in line],
            where="post",
            color=FRONT_COLOUR,
            lw=1.2,
            ls="--",
            label="Pareto front",
            zorder=1,
        )
        styles = _looks_of(summary)
        for row, cost in zip(rows, _spread([in_unit(row.flops or 0.0, unit) for row in rows])):
            assert row.primary is not None
            colour, marker = styles[row.strategy]
            filled = row.view == summary.views[0]
            axes.errorbar(
                cost,
                row.primary.estimate * metric.scale,
                yerr=_half(row, metric),
                color=colour,
                marker=marker,
                markersize=8,
                markerfacecolor=colour if filled else "white",
                capsize=3,
                lw=1.2,
                ls="none",
                label=safe(f"{row.strategy}, {row.view}"),
                zorder=3,
            )
        axes.set(
            xlabel=f"training {unit} (equal costs are drawn side by side)", ylabel=safe(f"{metric.heading} (test)")
        )
        axes.set_title("Quality against cost", loc="left")
        axes.grid(color="#e5e5e5", zorder=0)
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
        save(figure, path)


def _intervals(axes: Any, summary: Summary, rows: Sequence[Row], metric: Metric) -> None:
    styles = _looks_of(summary)
    for place, row in enumerate(rows):
        assert row.primary is not None
        colour, marker = styles[row.strategy]
        seeds = [value * metric.scale for _, _, value in row.points]
        axes.plot(
            seeds, [place + 0.24] * len(seeds), ls="none", marker="|", markersize=7, color=colour, alpha=0.7, zorder=2
        )
        value = row.primary.estimate * metric.scale
        axes.errorbar(
            value,
            place,
            xerr=_half(row, metric),
            color=colour,
            marker=marker,
            markersize=7,
            capsize=4,
            lw=1.8,
            zorder=3,
        )
        axes.annotate(
            metric.text(row.primary.estimate),
            (value, place),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=colour,
        )
    axes.set_yticks(range(len(rows)), [safe(row.strategy) for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.65)
    _floors(axes, summary, rows, metric)
    arrow = "" if metric.higher_is_better else " (lower is better)"
    axes.set_xlabel(safe(f"{metric.heading} on test{arrow}"))
    axes.set_title(f"Mean, {summary.level} interval; ticks: single seeds", loc="left")
    axes.grid(axis="x", color="#e5e5e5", zorder=0)
    axes.tick_params(axis="y", length=0)


def _floors(axes: Any, summary: Summary, rows: Sequence[Row], metric: Metric) -> None:
    """Floors near the strategies as lines, those far away as a sentence: they would squeeze everything else."""
    values = [value * metric.scale for row in rows for _, _, value in row.points if value == value]
    ends = [value for row in rows for value in _ends(row, metric)]
    if not values:
        return
    low, high = min(values + ends), max(values + ends)
    reach = 1.5 * (high - low) or 0.1 * abs(high) or 1.0
    near, far = [], []
    for name, floor in summary.floors.items():
        if metric.id in floor:
            value = floor[metric.id] * metric.scale
            if low - reach <= value <= high + reach:
                near.append((value, name))
            else:
                far.append(f"{name} {metric.text(floor[metric.id])}")
    # Each name has a line of its own below the strategies, so that names of neighbours do not lie on one another.
    sentence = wrap("off the scale: " + ", ".join(far), _LETTERS) if far else []
    lines, top, bottom = len(near) + len(sentence), -0.65, len(rows) - 0.45
    share = _LINE_INCHES / (axes.figure.get_figheight() - _AROUND_INCHES)
    line_height = (bottom - top) * share / max(1 - lines * share, 0.3)
    axes.set_ylim(bottom + lines * line_height, top)
    places = [bottom + (line + 0.5) * line_height for line in range(lines)]
    middle = sum(axes.get_xlim()) / 2
    for place, (value, name) in zip(places, sorted(near), strict=False):
        before = value > middle
        axes.plot([value, value], [top, place + line_height / 3], color=_GREY, ls=":", lw=1.3, zorder=1, scaley=False)
        note = axes.annotate(
            safe(name),
            (value, place),
            (-3 if before else 3, 0),
            textcoords="offset points",
            ha="right" if before else "left",
            va="center",
            fontsize=8,
            color="#555555",
        )
        note.set_in_layout(False)
    for place, line in zip(places[len(near) :], sentence, strict=True):
        note = axes.annotate(
            *(safe(line), (0.01, place)),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color="#555555",
        )
        note.set_in_layout(False)


def _curves(axes: Any, summary: Summary, rows: Sequence[Row], runs: Sequence[RunRecord], spec: ReportSpec) -> None:
    metric, unit = spec.primary, flops_unit([row.flops for row in rows])
    styles = _looks_of(summary)
    shown: list[float] = []
    for row in rows:
        colour, marker = styles[row.strategy]
        mine = [run for run in runs if run.strategy == row.strategy and run.seed in row.seeds]
        curves = [curve for run in mine if (curve := curve_of(run, spec.validation_id))]
        for curve in curves:
            costs, scores = zip(*curve)
            axes.plot(in_unit(np.array(costs), unit), np.array(scores) * metric.scale, color=colour, alpha=0.3, lw=0.8)  # type: ignore[arg-type]
        if curves and len({len(curve) for curve in curves}) == 1:
            mean = np.mean(np.array(curves), axis=0)  # [evaluations, 2]
            shown += list(mean[len(mean) // 4 :, 1] * metric.scale)
            axes.plot(
                in_unit(mean[:, 0], unit),
                mean[:, 1] * metric.scale,
                color=colour,
                marker=marker,
                markersize=4,
                lw=1.9,
                label=safe(row.strategy),
            )
        elif curves:
            axes.plot([], [], color=colour, marker=marker, lw=1.9, label=safe(row.strategy))
    axes.set(xlabel=f"training {unit}", ylabel=safe(f"{metric.heading} on validation"))
    axes.set_title("Validation score against training FLOPs", loc="left")
    axes.set_xlim(left=0)
    axes.grid(color="#e5e5e5", zorder=0)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9, loc="lower right" if metric.higher_is_better else "upper right")
    else:
        axes.text(0.5, 0.5, "no curve was recorded", ha="center", transform=axes.transAxes)


def _spread(costs: Sequence[float]) -> list[float]:
    """Costs that would hide each other, moved apart by up to a few hundredths of the picture's width."""
    width = 0.012 * ((max(costs) - min(costs)) or max(costs))
    moved: list[float] = []
    for index, cost in enumerate(costs):
        near = [other for other in range(len(costs)) if abs(costs[other] - cost) < width / 2]
        moved.append(cost + width * (near.index(index) - (len(near) - 1) / 2))
    return moved


# -- small things ------------------------------------------------------------------------------------------------------


def _looks_of(summary: Summary) -> dict[str, Look]:
    return looks([row.strategy for row in summary.rows], summary.known)


def _ends(row: Row, metric: Metric) -> list[float]:
    assert row.primary is not None
    return [end * metric.scale for end in (row.primary.low, row.primary.high) if end == end]


def _half(row: Row, metric: Metric) -> float | None:
    assert row.primary is not None
    half = row.primary.half_width
    return half * metric.scale if half == half else None
