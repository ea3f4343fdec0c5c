"""The picture of iso-quality: quality against training FLOPs, a curve with its band for every strategy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.report.figures import figure_of, safe, save, style
from benchmarks.report.rows import Summary
from benchmarks.report.spec import ReportSpec
from benchmarks.report.style import looks
from benchmarks.report.views import MULTI_TASK, SINGLE_TASK


def curve_picture(summary: Summary, spec: ReportSpec, path: Path) -> None:
    """Every strategy's curve with its 95 % band, full MTL's level, and that level less δ."""
    iso, metric = summary.iso, spec.primary
    assert iso is not None
    sign = metric.scale if metric.higher_is_better else -metric.scale
    styles = looks([row.strategy for row in summary.rows], summary.known)
    with style():
        figure = figure_of(9.0, 5.0)
        axes = figure.subplots()
        shown: list[float] = [iso.level * metric.scale]
        for curve in iso.curves:
            colour, marker = styles[curve.strategy]
            places = [int(np.abs(curve.grid - share).argmin()) for share in curve.shares]
            axes.fill_between(curve.grid, sign * curve.low, sign * curve.high, color=colour, alpha=0.12, lw=0)
            axes.plot(curve.grid, sign * curve.fitted, color=colour, lw=1.7)
            label = safe(curve.strategy)
            axes.plot(
                curve.shares, sign * curve.fitted[places], color=colour, marker=marker, ls="none", label=label, zorder=3
            )
            if curve.strategy != SINGLE_TASK:
                shown += list(sign * curve.fitted)
        level = iso.level * metric.scale
        axes.axhline(level, color="#444444", lw=1.1, label=f"full {MULTI_TASK}")
        if iso.margin is not None:
            below = level - sign * iso.margin
            shown.append(below)
            axes.axhline(below, color="#444444", lw=1.1, ls=":", label=f"full {MULTI_TASK} less δ")
        axes.set_xscale("log")
        ticks = sorted({round(share, 2) for curve in iso.curves for share in curve.shares if share > 0.1})
        ticks = [tick for place, tick in enumerate(ticks) if not place or tick / ticks[place - 1] > 1.08]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        room = 0.12 * (max(shown) - min(shown)) or 1.0
        axes.set_ylim(min(shown) - room, max(shown) + room)  # single-task training may lie far below
        arrow = "" if metric.higher_is_better else " (lower is better)"
        axes.set(xlabel=f"training FLOPs, share of full {MULTI_TASK}'s", ylabel=safe(f"{metric.heading} (test){arrow}"))
        axes.set_title(safe(f"{spec.title}. Quality against FLOPs"), loc="left")
        axes.grid(color="#e5e5e5", zorder=0)
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
        save(figure, path)
