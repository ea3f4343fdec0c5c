"""The tables of a summary: each view, further metrics, the primary metric by kind of item, and the schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.report.cells import difference_text, flops_text, flops_unit, interval_text, share_text
from benchmarks.report.costs import COSTS
from benchmarks.report.iso_table import iso_tables
from benchmarks.report.rows import Reach, Row, Summary
from benchmarks.report.spec import Group, Metric, ReportSpec
from benchmarks.report.text_table import NOTHING, TextTable
from benchmarks.report.views import EQUAL_STEPS, MULTI_TASK, SINGLE_TASK, is_budget, view_title

ALPHA = 0.05
_MOST_KINDS = 8  # of items, beside each other


def summary_tables(summary: Summary, spec: ReportSpec) -> tuple[TextTable, ...]:
    """All tables of a report."""
    found = [
        *iso_tables(summary.iso, spec, summary.level),
        *[_view_table(summary, spec, view) for view in summary.views],
    ]
    for view in summary.views:
        found += [*_further_metrics(summary, spec, view), *_group_tables(summary, spec, view)]
    return (*found, *_schedule_table(summary))


def _view_table(summary: Summary, spec: ReportSpec, view: str) -> TextTable:
    """Strategy by strategy: what it reached, against STL and MTL, and what it cost; then the floors and the holes."""
    rows, metric = summary.of_view(view), spec.primary
    unit = flops_unit([row.flops for row in rows])
    budget = is_budget(view)
    full = any(row.to_full_multi for row in rows)
    costs = [cost for cost in COSTS if any(row.costs[cost.name] for row in rows)]
    head = ["strategy", "seeds", f"{metric.heading} ({summary.level})", f"Δ to {SINGLE_TASK}", f"Δ to {MULTI_TASK}"]
    head += [f"Δ to full {MULTI_TASK}"] if full else []
    cut = len(head)
    head += ["steps", unit]
    head += (
        ([f"saved of full {MULTI_TASK}"] if full else [])
        if budget
        else [f"saved of {MULTI_TASK}", f"saved of {SINGLE_TASK}"]
    )
    head += [f"{unit} to {MULTI_TASK}'s score", *(cost.head for cost in costs)]
    body = []
    for row in rows:
        cells = [row.strategy, _seeds_text(row), interval_text(row.primary, metric)]
        cells += [_marked(row, "to_single", metric), _marked(row, "to_multi", metric)]
        cells += [_marked(row, "to_full_multi", metric)] if full else []
        cells += [NOTHING if row.steps is None else f"{row.steps:.0f}", flops_text(row.flops, unit)]
        savings = (
            ([row.saved_of_full_multi] if full else []) if budget else [row.compression_multi, row.compression_single]
        )
        cells += [*map(share_text, savings), reach_text(row.reach, unit)]
        for cost in costs:
            value = row.costs[cost.name]
            cells.append(NOTHING if value is None else cost.text(value))
        body.append(tuple(cells))
    for part, once in summary.frozen.items():
        cells = [f"once for all runs: frozen {part} tower", *[NOTHING] * (len(head) - 1)]
        cells[cut + 1] = flops_text(once.flops, unit)
        for place, cost in enumerate(costs, len(head) - len(costs)):
            if cost.name == "train_seconds":
                cells[place] = cost.text(once.seconds)
        body.append(tuple(cells))
    floors = [(name, values[metric.id]) for name, values in summary.floors.items() if metric.id in values]
    body += [(f"floor: {name}", NOTHING, metric.text(value), *[NOTHING] * (len(head) - 3)) for name, value in floors]
    faint = frozenset(range(len(body) - len(floors), len(body)))
    title, caption = view_title(view), _caption(summary, spec, view)
    return TextTable(title, tuple(head), tuple(body), caption, cut, faint)


def _marked(row: Row, column: str, metric: Metric) -> str:
    """A difference, with a star where it stays told from 0 when all strategies of the column are tested at once."""
    text = difference_text(getattr(row, column), metric)
    return f"{text} *" if row.adjusted_p.get(column, math.nan) <= ALPHA else text


def _caption(summary: Summary, spec: ReportSpec, view: str) -> str:
    parts = [
        f"Means over seeds with {summary.level} intervals; differences are paired by seed and item, in points of the "
        "metric's scale. * = told from 0 also when all strategies of the column are tested at once (Holm)."
    ]
    if any(row.primary is not None and row.primary.over == "items" for row in summary.of_view(view)):
        parts.append("With one seed an interval is over items only.")
    if view == EQUAL_STEPS and summary.limit is not None:
        parts.append(
            f"The auxiliaries' share of {MULTI_TASK}'s training FLOPs is {summary.limit:.1%}, the limit of any saving "
            "at equal steps."
        )
    multi = next((row.reach for row in summary.of_view(view) if row.strategy == MULTI_TASK and row.reach), None)
    if multi is not None:
        score = f"{spec.primary.text(multi.target)} {spec.primary.unit}".strip()
        parts.append(f"{MULTI_TASK}'s score: its final validation score in this view, {score}, mean over its seeds.")
    if summary.frozen:
        parts.append(
            "A frozen tower is run once and its outputs are kept for all runs; what that took is in a row of its own "
            "and in no other."
        )
    parts.append("1 multiply-add = 2 FLOPs.")
    return " ".join(parts)


def _further_metrics(summary: Summary, spec: ReportSpec, view: str) -> list[TextTable]:
    """The spec's other columns, for the rows that have them."""
    rows = [row for row in summary.of_view(view) if row.columns]
    columns = [column for column in spec.columns if any(column.id in row.columns for row in rows)]
    if not columns:
        return []
    body = [(row.strategy, *[interval_text(row.columns.get(column.id), column) for column in columns]) for row in rows]
    for floor, values in summary.floors.items():
        if any(column.id in values for column in columns):
            body.append((f"floor: {floor}", *[column.text(values.get(column.id)) for column in columns]))
    head = ("strategy", *[column.directed_heading for column in columns])
    caption = "" if all(column.higher_is_better for column in columns) else "↓ lower is better."
    faint = frozenset(range(len(rows), len(body)))
    return [TextTable(f"Further metrics, {view}", head, tuple(body), caption, faint=faint)]


def _group_tables(summary: Summary, spec: ReportSpec, view: str) -> list[TextTable]:
    """The primary metric by kind of item."""
    found = []
    for group in spec.groups:
        rows = [row for row in summary.of_view(view) if row.groups.get(group.array)]
        names = list(dict.fromkeys(name for row in rows for name in row.groups[group.array]))
        if names:
            body = [
                (row.strategy, *[interval_text(row.groups[group.array].get(name), spec.primary) for name in names])
                for row in rows
            ]
            title = f"{spec.primary.heading} by {group.label}, {view}"
            tall = _tall(rows, group, names, spec.primary, title) if len(names) > _MOST_KINDS else None
            found.append(TextTable(title, ("strategy", *names), tuple(body), tall=tall))
    return found


def _tall(rows: Sequence[Row], group: Group, names: Sequence[str], metric: Metric, title: str) -> TextTable:
    """Kinds below each other, by their mean over the strategies, the worst first."""
    sign = 1 if metric.higher_is_better else -1

    def quality(name: str) -> float:
        found = [row.groups[group.array][name].estimate for row in rows if name in row.groups[group.array]]
        return sign * sum(found) / len(found)

    body = [
        (name, *[interval_text(row.groups[group.array].get(name), metric) for row in rows])
        for name in sorted(names, key=quality)
    ]
    return TextTable(title, (group.label, *[row.strategy for row in rows]), tuple(body))


def _schedule_table(summary: Summary) -> list[TextTable]:
    """Strategy × auxiliary → its schedule; none where the records hold no schedules."""
    auxiliaries = list(dict.fromkeys(name for texts in summary.schedules.values() for name in texts))
    if not auxiliaries:
        return []
    body = [
        (strategy, *[texts.get(name, NOTHING) for name in auxiliaries]) for strategy, texts in summary.schedules.items()
    ]
    return [TextTable("Schedules of the auxiliaries", ("strategy", *auxiliaries), tuple(body))]


def _seeds_text(row: Row) -> str:
    """ "3", or "2 of 3 (1 failed)"."""
    if not row.holes:
        return str(len(row.seeds))
    kinds = [hole.kind for hole in row.holes]
    missing = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    return f"{len(row.seeds)} of {len(row.seeds) + len(kinds)} ({missing})"


def reach_text(reach: Reach | None, unit: str) -> str:
    """ "1.2", "1.2 (2 of 3 seeds)" or "never"."""
    if reach is None:
        return NOTHING
    if reach.flops is None:
        return "never"
    part = "" if reach.reached == reach.seeds else f" ({reach.reached} of {reach.seeds} seeds)"
    return flops_text(reach.flops, unit) + part
