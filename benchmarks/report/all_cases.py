"""One table of all cases: case × strategy, from each case's summary."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.cells import difference_text, flops_text, flops_unit, interval_text, metric_lines, share_text
from benchmarks.report.page import Page
from benchmarks.report.rows import Row, Summary
from benchmarks.report.spec import ReportSpec
from benchmarks.report.text_table import NOTHING, TextTable
from benchmarks.report.views import EQUAL_STEPS, MULTI_TASK, fair_view

CaseSummary = tuple[str, ReportSpec, Summary]  # the case's name, its spec, its summary
_HEAD = (
    *("case", "metric", "strategy"),
    *("equal budget (95 %)", f"Δ to {MULTI_TASK}", "equal steps (95 %)", f"Δ to {MULTI_TASK}"),
    *("training FLOPs", "saved", "limit"),
)
_CAPTION = (
    "Means over seeds with 95 % intervals; differences paired by seed and item; ↓ lower is better. Training FLOPs and "
    f"the share saved of {MULTI_TASK}'s are those at equal steps; limit = the auxiliaries' share of {MULTI_TASK}'s "
    "FLOPs."
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
    )


def _table(cases: Sequence[CaseSummary]) -> TextTable:
    """Case × strategy → quality and difference to MTL at equal budget and at equal steps, FLOPs, saving; floors."""
    body: list[tuple[str, ...]] = []
    faint = set()
    for name, spec, summary in cases:
        metric = spec.primary
        labels = (name, metric.directed_heading)
        fair = fair_view(summary.views) or ""
        unit = flops_unit([row.flops for row in summary.of_view(EQUAL_STEPS)])
        for strategy in dict.fromkeys(row.strategy for row in summary.rows):
            budget, steps = _row(summary, fair, strategy), _row(summary, EQUAL_STEPS, strategy)
            cells = [*labels, strategy]
            labels = ("", "")  # said once a case
            for row in (budget, steps):
                cells += [interval_text(row.primary, metric), difference_text(row.to_multi, metric)]
            cells.append(NOTHING if steps.flops is None else f"{flops_text(steps.flops, unit)} {unit}")
            body.append((*cells, share_text(steps.compression_multi), share_text(summary.limit)))
        for floor, values in summary.floors.items():
            if metric.id in values:
                value = metric.text(values[metric.id])
                faint.add(len(body))
                body.append(("", "", f"floor: {floor}", value, NOTHING, value, *[NOTHING] * (len(_HEAD) - 6)))
    return TextTable("All cases", _HEAD, tuple(body), _CAPTION, faint=frozenset(faint))


def _row(summary: Summary, view: str, strategy: str) -> Row:
    """The strategy's row in that view; an empty one where it has none."""
    return next((row for row in summary.of_view(view) if row.strategy == strategy), Row(view, strategy, (), ()))
