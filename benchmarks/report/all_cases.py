"""One table of all cases, case × strategy, and a leaderboard page, from each case's summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.report.cells import (
    difference_text,
    flops_text,
    flops_unit,
    in_unit,
    interval_text,
    metric_lines,
    share_text,
)
from benchmarks.report.charts import iso_charts
from benchmarks.report.finding import finding_of, verdict_of
from benchmarks.report.page import Page
from benchmarks.report.rows import Row, Summary
from benchmarks.report.spec import ReportSpec
from benchmarks.report.text_table import NOTHING, TextTable
from benchmarks.report.views import CLAIMED_BUDGET, EQUAL_STEPS, MULTI_TASK, budget_view, fair_view

CaseSummary = tuple[str, ReportSpec, Summary]  # the case's name, its spec, its summary
_HEAD = (
    *("case", "metric", "strategy", "value (95 %)", f"Δ to {MULTI_TASK} (95 %)", f"Δ to full {MULTI_TASK} (95 %)"),
    *("training FLOPs", f"saved of full {MULTI_TASK}'s"),
)
_CAPTION = (
    f"Every strategy gets {CLAIMED_BUDGET:.0%} of full {MULTI_TASK}'s training FLOPs, or the case's budget that is "
    f"nearest to that; full {MULTI_TASK} runs all its steps. Means over seeds with 95 % intervals; differences paired "
    "by seed and item; ↓ lower is better."
)


def all_cases_page(cases: Sequence[CaseSummary], missing: Sequence[str] = ()) -> Page:
    """The table, what a reader must know case by case, and the metrics' definitions.

    Args:
        missing: remarks on cases without records.
    """
    remarks = [f"{name}: {remark}" for name, _, summary in cases for remark in summary.remarks]
    return Page(
        tables=(_table(cases),),
        remarks=(*remarks, *missing),
        metrics=tuple(metric_lines([spec.primary for _, spec, _ in cases])),
        title="All cases",
        name="leaderboard",
        finding=_in_short(cases),
    )


def leaderboard_page(cases: Sequence[CaseSummary], missing: Sequence[str], command: str) -> Page:
    """The page of all cases as people look at it: what each comes to, its curves, and one long table to sort.

    Args:
        command: what makes the page again.
    """
    findings = [(name, verdict_of(summary) or NOTHING, _found(spec, summary)) for name, spec, summary in cases]
    charts = [chart for name, spec, summary in cases for chart in iso_charts(summary, spec, f"{name}: {spec.title}")]
    return replace(
        all_cases_page(cases, missing),
        title="Leaderboard: cases and strategies",
        origin=f"{len(cases)} cases, {sum(len(row.seeds) for _, _, one in cases for row in one.rows)} runs by view.",
        lead=(TextTable("What each case comes to", ("case", "verdict", "finding"), tuple(findings)),),
        tables=(_long(cases),),
        charts=tuple(charts),
        links=tuple((name, f"{one.benchmark}/{one.recipe}/report.html") for name, _, one in cases),
        reproduce=(("Make this page again from the records", command),),
    )


def _found(spec: ReportSpec, summary: Summary) -> str:
    sentence = summary.iso.sentence if summary.iso and verdict_of(summary) else ""
    return sentence or finding_of(summary, spec) or "no finished run"


def _in_short(cases: Sequence[CaseSummary]) -> str:
    """How many cases hold, and which."""
    by_kind: dict[str, list[str]] = {}
    for name, _, summary in cases:
        by_kind.setdefault(verdict_of(summary) or "without a verdict", []).append(name)
    kinds = ("holds", "undecided", "fails", "without a verdict")
    parts = [f"{kind}: {', '.join(by_kind[kind])}" for kind in kinds if kind in by_kind]
    return f"The same quality for fewer training FLOPs, case by case: {'; '.join(parts)}." if parts else ""


def _long(cases: Sequence[CaseSummary]) -> TextTable:
    """A row for each case, view and strategy, in which each says all of itself, so that rows can be sorted."""
    head = (
        *("case", "strategy", "view", "metric", "value (95 %)", f"Δ to {MULTI_TASK}", f"Δ to full {MULTI_TASK}"),
        *("TFLOPs", "seeds"),
    )
    body = []
    for name, spec, summary in cases:
        metric = spec.primary
        for row in summary.rows:
            flops = NOTHING if row.flops is None else f"{in_unit(row.flops, 'TFLOPs'):.3g}"
            values = (interval_text(row.primary, metric), difference_text(row.to_multi, metric))
            label = metric.directed_heading
            full = difference_text(row.to_full_multi, metric)
            body.append((name, row.strategy, row.view, label, *values, full, flops, str(len(row.seeds))))
    caption = (
        "Means over seeds with 95 % intervals; differences paired by seed and item, within the case and the view; "
        "↓ lower is better. Values of different cases are different metrics."
    )
    return TextTable("Every strategy in every view", head, tuple(body), caption)


def _table(cases: Sequence[CaseSummary]) -> TextTable:
    """Case × strategy → quality at the claimed budget, differences to MTL and to full MTL, FLOPs, saving; floors."""
    body: list[tuple[str, ...]] = []
    faint = set()
    for name, spec, summary in cases:
        metric = spec.primary
        labels = (name, metric.directed_heading)
        rows = [(row.strategy, row) for row in summary.of_view(fair_view(summary.views) or EQUAL_STEPS)]
        rows = [(f"full {MULTI_TASK}", row) for row in (full_multi_task(summary),) if row is not None] + rows
        unit = flops_unit([row.flops for _, row in rows])
        for strategy, row in rows:
            differences = [difference_text(found, metric) for found in (row.to_multi, row.to_full_multi)]
            flops = NOTHING if row.flops is None else f"{flops_text(row.flops, unit)} {unit}"
            cells = (*labels, strategy, interval_text(row.primary, metric), *differences, flops)
            body.append((*cells, share_text(row.saved_of_full_multi)))
            labels = ("", "")  # said once a case
        for floor, values in summary.floors.items():
            if metric.id in values:
                faint.add(len(body))
                value = metric.text(values[metric.id])
                body.append(("", "", f"floor: {floor}", value, *[NOTHING] * (len(_HEAD) - 4)))
    return TextTable("All cases", _HEAD, tuple(body), _CAPTION, faint=frozenset(faint), names=3)


def full_multi_task(summary: Summary) -> Row | None:
    """MTL with all its steps; None where it was not run."""
    rows = {row.view: row for row in summary.rows if row.strategy == MULTI_TASK}
    return rows.get(EQUAL_STEPS) or rows.get(budget_view(1.0))
