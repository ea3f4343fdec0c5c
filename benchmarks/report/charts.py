"""The charts of a report: iso-quality, quality against cost, validation while training; also of all cases together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.records.read import RunRecord
from benchmarks.report.cells import flops_text, flops_unit, in_unit, interval_text
from benchmarks.report.chart import Chart, Mark, Series
from benchmarks.report.rows import Row, Summary, curve_of
from benchmarks.report.spec import Metric, ReportSpec
from benchmarks.report.style import looks
from benchmarks.report.views import MULTI_TASK, SINGLE_TASK, fair_view, view_title

_MOST_POINTS = 120  # of a line that is drawn from a fine grid


def charts_of(summary: Summary, runs: Sequence[RunRecord], spec: ReportSpec) -> tuple[Chart, ...]:
    """All charts of a case's report."""
    found = [*iso_charts(summary, spec), _cost_chart(summary, spec)]
    for view in dict.fromkeys(view for view in (fair_view(summary.views), *summary.views[-1:]) if view):
        found.append(_validation_chart(summary, [run for run in runs if view in run.views], spec, view))
    return tuple(chart for chart in found if chart.series)


def iso_charts(summary: Summary, spec: ReportSpec, title: str = "") -> list[Chart]:
    """Every strategy's curve with its 95 % band, full MTL's level and that level less δ; none without two budgets."""
    iso, metric = summary.iso, spec.primary
    if iso is None or not any(len(curve.shares) > 1 for curve in iso.curves):
        return []
    sign = metric.scale if metric.higher_is_better else -metric.scale
    styles = looks([row.strategy for row in summary.rows], summary.known)
    series = []
    for curve in iso.curves:
        chosen = np.unique(np.linspace(0, len(curve.grid) - 1, min(len(curve.grid), _MOST_POINTS)).astype(int))
        xs, ys = curve.grid[chosen].tolist(), (sign * curve.fitted[chosen]).tolist()
        lower, upper = (curve.low, curve.high) if metric.higher_is_better else (curve.high, curve.low)
        lows, highs = (sign * lower[chosen]).tolist(), (sign * upper[chosen]).tolist()
        marks = []
        for share in curve.shares:
            place = int(np.abs(curve.grid - share).argmin())
            low, high = sign * lower[place], sign * upper[place]
            value = sign * curve.fitted[place]
            text = (
                f"{_text(value, metric)} [{_text(low, metric)}, {_text(high, metric)}] at {share:.2f} of full "
                f"{MULTI_TASK}'s training FLOPs"
            )
            marks.append(Mark(share, float(value), math.nan, math.nan, text))
        series.append(
            Series(
                curve.strategy,
                *styles[curve.strategy],
                marks=tuple(marks),
                lines=(tuple(zip(xs, ys)),),
                band=tuple(zip(xs, lows, highs)),
                far=curve.strategy == SINGLE_TASK,
            )
        )
    level = iso.level * metric.scale
    levels = [(f"full {MULTI_TASK}: {_text(level, metric)}", level)]
    if iso.margin is not None:
        below = level - sign * iso.margin
        levels.append((f"full {MULTI_TASK} less δ: {_text(below, metric)}", below))
    name = f"training FLOPs, share of full {MULTI_TASK}'s"
    return [Chart(title or "Iso-quality", name, _y_label(metric), tuple(series), tuple(levels), log_x=True)]


def _cost_chart(summary: Summary, spec: ReportSpec) -> Chart:
    """The primary metric against training FLOPs: every strategy in every view, hollow outside the first one."""
    metric = spec.primary
    rows = [row for row in summary.rows if row.primary is not None and row.flops is not None]
    unit = flops_unit([row.flops for row in rows])
    styles = looks([row.strategy for row in summary.rows], summary.known)
    series = []
    for strategy in dict.fromkeys(row.strategy for row in rows):
        mine = sorted((row for row in rows if row.strategy == strategy), key=lambda row: row.flops or 0.0)
        marks = tuple(_cost_mark(row, metric, unit) for row in mine)
        hollow = frozenset(place for place, row in enumerate(mine) if row.view != summary.views[0])
        series.append(Series(strategy, *styles[strategy], marks=marks, hollow=hollow))
    title = f"Quality against cost: every view (filled: {summary.views[0]})" if summary.views else ""
    return Chart(title, f"training {unit}", _y_label(metric), tuple(series))


def _cost_mark(row: Row, metric: Metric, unit: str) -> Mark:
    found = row.primary
    assert found is not None
    assert row.flops is not None
    text = f"{interval_text(found, metric)} {metric.unit}, {row.view}, {flops_text(row.flops, unit)} {unit}"
    text += f", {len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}"
    ends = (found.low * metric.scale, found.high * metric.scale)
    return Mark(in_unit(row.flops, unit), found.estimate * metric.scale, *ends, text)


def _validation_chart(summary: Summary, runs: Sequence[RunRecord], spec: ReportSpec, view: str) -> Chart:
    """Validation while training: each seed thin, their mean with marks."""
    metric, rows = spec.primary, summary.of_view(view)
    unit = flops_unit([row.flops for row in rows])
    styles = looks([row.strategy for row in summary.rows], summary.known)
    series = []
    for row in rows:
        mine = [run for run in runs if run.strategy == row.strategy and run.seed in row.seeds]
        curves = [
            tuple((in_unit(cost, unit), score * metric.scale) for cost, score in curve)
            for run in mine
            if (curve := curve_of(run, spec.validation_id))
        ]
        if not curves:
            continue
        marks: tuple[Mark, ...] = ()
        lines: tuple[tuple[tuple[float, float], ...], ...] = ()
        if len({len(curve) for curve in curves}) == 1:
            mean = np.mean(np.array(curves), axis=0)  # [evaluations, 2]
            marks = tuple(
                Mark(cost, score, math.nan, math.nan, f"{_text(score, metric)} after {cost:.3g} {unit}")
                for cost, score in mean.tolist()
            )
            lines = (tuple((mark.x, mark.y) for mark in marks),)
        thin = tuple(curves) if len(curves) > 1 else ()
        series.append(Series(row.strategy, *styles[row.strategy], marks=marks, lines=lines or tuple(curves), thin=thin))
    y_label = f"{metric.heading} (validation)"
    return Chart(f"While training. {view_title(view)}", f"training {unit}", y_label, tuple(series))


def _text(scaled: float, metric: Metric) -> str:
    return f"{scaled:.{metric.decimals}f} {metric.unit}".rstrip()


def _y_label(metric: Metric) -> str:
    return f"{metric.heading} (test)" + ("" if metric.higher_is_better else ", lower is better")
