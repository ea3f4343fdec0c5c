"""One table of all cases: case × strategy, from each case's summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.rows import EQUAL_BUDGET, EQUAL_STEPS, MULTI_TASK, Row
from benchmarks.report.spec import ReportSpec
from benchmarks.report.summary import Summary
from benchmarks.report.tables import (
    NOTHING,
    TextTable,
    difference_text,
    flops_text,
    flops_unit,
    interval_text,
    markdown_list,
    metric_lines,
    to_markdown,
    with_direction,
)
from mt2st.files import write_text

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


def all_cases_table(cases: Sequence[CaseSummary]) -> TextTable:
    """Case × strategy → quality and difference to MTL at equal budget and at equal steps, FLOPs, saving; floors."""
    body: list[tuple[str, ...]] = []
    faint = set()
    for name, spec, summary in cases:
        metric = spec.primary
        labels = (name, with_direction(metric))
        unit = flops_unit([row.flops for row in summary.of_view(EQUAL_STEPS)])
        for strategy in dict.fromkeys(row.strategy for row in summary.rows):
            budget, steps = _row(summary, EQUAL_BUDGET, strategy), _row(summary, EQUAL_STEPS, strategy)
            cells = [*labels, strategy]
            labels = ("", "")  # said once a case
            for row in (budget, steps):
                cells += [interval_text(row.primary, metric), difference_text(row.to_multi, metric)] if row else []
                cells += [] if row else [NOTHING, NOTHING]
            flops, saved = (steps.flops, steps.compression_multi) if steps else (None, None)
            cells.append(NOTHING if flops is None else f"{flops_text(flops, unit)} {unit}")
            cells += [NOTHING if share is None else f"{share:.0%}" for share in (saved, summary.limit)]
            body.append(tuple(cells))
        for floor, values in summary.floors.items():
            if metric.id in values:
                value = metric.text(values[metric.id])
                faint.add(len(body))
                body.append(("", "", f"floor: {floor}", value, NOTHING, value, *[NOTHING] * (len(_HEAD) - 6)))
    return TextTable("All cases", _HEAD, tuple(body), _CAPTION, faint=frozenset(faint))


def all_cases_remarks(cases: Sequence[CaseSummary]) -> list[str]:
    """What a reader must know, case by case."""
    return [f"{name}: {remark}" for name, _, summary in cases for remark in summary.remarks]


def write_all_cases(path: Path, cases: Sequence[CaseSummary], missing: Sequence[str] = ()) -> TextTable:
    """Write the table, the remarks and the metrics' definitions as Markdown, atomically; returns the table.

    Args:
        missing: remarks on cases without records.
    """
    table = all_cases_table(cases)
    parts = [to_markdown(table), *markdown_list("Holes and remarks", [*all_cases_remarks(cases), *missing])]
    parts += markdown_list("Metrics", metric_lines([spec.primary for _, spec, _ in cases]))
    write_text(path, "\n".join(parts))
    return table


def _row(summary: Summary, view: str, strategy: str) -> Row | None:
    return next((row for row in summary.of_view(view) if row.strategy == strategy), None)
