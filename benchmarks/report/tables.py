"""The summary as tables of text: one structure, rendered for the terminal, as Markdown and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.report.rows import EQUAL_BUDGET, EQUAL_STEPS, MULTI_TASK, Reach, Row
from benchmarks.report.spec import Metric, ReportSpec
from benchmarks.report.statistics import Interval
from benchmarks.report.summary import Summary

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NOTHING = "–"
VIEW_TITLES = {
    EQUAL_BUDGET: "Equal budget: every strategy gets the same training FLOPs",
    EQUAL_STEPS: "Equal steps: every strategy runs as long as MTL",
}
_UNITS = ((1e15, "PFLOPs"), (1e11, "TFLOPs"), (0.0, "GFLOPs"))
_UNIT_SIZE = {"PFLOPs": 1e15, "TFLOPs": 1e12, "GFLOPs": 1e9}


@dataclass(frozen=True)
class TextTable:
    """A table of text. `cut` is how many columns stay together in front when a narrow terminal gets it in two parts."""

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    caption: str = ""
    cut: int = 0


def tables(summary: Summary, spec: ReportSpec) -> list[TextTable]:
    """All tables of a report: each view, further metrics, and the breakdowns."""
    found = []
    for view in summary.views:
        found.append(view_table(summary, spec, view))
    for view in summary.views:
        found += [*further_metrics(summary, spec, view), *group_tables(summary, spec, view)]
    return found


def view_table(summary: Summary, spec: ReportSpec, view: str) -> TextTable:
    """Strategy by strategy: what it reached, against STL and MTL, and what it cost; then the floors and the holes."""
    rows, metric = summary.of_view(view), spec.primary
    unit = flops_unit([row.flops for row in rows])
    budget = view == EQUAL_BUDGET
    full = any(row.to_full_multi for row in rows)
    head = ["strategy", "seeds", f"{with_unit(metric)} (95 %)", "Δ to STL", "Δ to MTL"]
    cut = len(head) + full
    head += ["Δ to full MTL"] if full else []
    head += ["steps", unit]
    head += (["saved of full MTL"] if full else []) if budget else ["saved of MTL", "saved of STL"]
    head += [f"{unit} to MTL's score", "train s", "peak MB"]
    if show_gpu := any(row.gpu_peak_memory_bytes for row in rows):
        head.append("GPU peak MB")
    body = []
    for row in rows:
        cells = [row.strategy, seeds_text(row), interval_text(row.primary, metric)]
        cells += [difference_text(row.to_single, metric), difference_text(row.to_multi, metric)]
        cells += [difference_text(row.to_full_multi, metric)] if full else []
        cells += [NOTHING if row.steps is None else f"{row.steps:.0f}", flops_text(row.flops, unit)]
        savings = (
            ([row.saved_of_full_multi] if full else []) if budget else [row.compression_multi, row.compression_single]
        )
        cells += [NOTHING if share is None else f"{share:.0%}" for share in savings]
        cells += [reach_text(row.reach, unit), NOTHING if row.train_seconds is None else f"{row.train_seconds:.0f}"]
        cells.append(megabytes(row.peak_memory_bytes))
        cells += [megabytes(row.gpu_peak_memory_bytes)] if show_gpu else []
        body.append(tuple(cells))
    for floor, values in summary.floors.items():
        if metric.id in values:
            body.append((f"floor: {floor}", NOTHING, metric.text(values[metric.id]), *[NOTHING] * (len(head) - 3)))
    return TextTable(VIEW_TITLES.get(view, view), tuple(head), tuple(body), _caption(summary, spec, view), cut)


def _caption(summary: Summary, spec: ReportSpec, view: str) -> str:
    parts = [
        "Means over seeds with 95 % intervals; differences are paired by seed and item, in points of the metric's "
        "scale."
    ]
    if any(row.primary is not None and row.primary.over == "items" for row in summary.of_view(view)):
        parts.append("With one seed an interval is over items only.")
    if view == EQUAL_STEPS and summary.limit is not None:
        parts.append(
            f"The auxiliaries' share of MTL's training FLOPs is {summary.limit:.1%}, the limit of any saving at equal "
            "steps."
        )
    multi = next((row.reach for row in summary.of_view(view) if row.strategy == MULTI_TASK and row.reach), None)
    if multi is not None:
        score = f"{spec.primary.text(multi.target)} {spec.primary.unit}".strip()
        parts.append(f"MTL's score: its final validation score in this view, {score}, mean over its seeds.")
    parts.append("1 multiply-add = 2 FLOPs.")
    return " ".join(parts)


def further_metrics(summary: Summary, spec: ReportSpec, view: str) -> list[TextTable]:
    """The spec's other columns, for the rows that have them."""
    rows = [row for row in summary.of_view(view) if row.columns]
    columns = [column for column in spec.columns if any(column.id in row.columns for row in rows)]
    if not columns:
        return []
    body = [(row.strategy, *[interval_text(row.columns.get(column.id), column) for column in columns]) for row in rows]
    for floor, values in summary.floors.items():
        if any(column.id in values for column in columns):
            body.append((f"floor: {floor}", *[column.text(values.get(column.id)) for column in columns]))
    head = ("strategy", *[f"{with_unit(column)}{' ↓' if not column.higher_is_better else ''}" for column in columns])
    return [
        TextTable(f"Further metrics, {view}", head, tuple(body), "↓ lower is better." if "↓" in "".join(head) else "")
    ]


def group_tables(summary: Summary, spec: ReportSpec, view: str) -> list[TextTable]:
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
            found.append(
                TextTable(f"{with_unit(spec.primary)} by {group.label}, {view}", ("strategy", *names), tuple(body))
            )
    return found


# -- cells -------------------------------------------------------------------------------------------------------------


def with_unit(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def interval_text(interval: Interval | None, metric: Metric) -> str:
    """ "97.9 ± 1.5"; the number alone where there is no interval."""
    if interval is None:
        return NOTHING
    half = interval.half_width
    return metric.text(interval.estimate) if half != half else f"{metric.text(interval.estimate)} ± {metric.text(half)}"


def difference_text(interval: Interval | None, metric: Metric) -> str:
    """ "+0.8 [-0.3, +1.9]"."""
    if interval is None:
        return NOTHING
    estimate = metric.text(interval.estimate, signed=True)
    if interval.low != interval.low:
        return estimate
    return f"{estimate} [{metric.text(interval.low, signed=True)}, {metric.text(interval.high, signed=True)}]"


def seeds_text(row: Row) -> str:
    """ "3", or "2 of 3 (1 failed)"."""
    if not row.holes:
        return str(len(row.seeds))
    kinds = [hole.kind for hole in row.holes]
    missing = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    return f"{len(row.seeds)} of {len(row.seeds) + len(kinds)} ({missing})"


def flops_unit(values: Sequence[float | None]) -> str:
    """The unit that suits the largest of the values."""
    largest = max((value for value in values if value is not None), default=0.0)
    return next(unit for limit, unit in _UNITS if largest >= limit)


def in_unit(value: float, unit: str) -> float:
    """FLOPs in `unit` ("GFLOPs", "TFLOPs", "PFLOPs")."""
    return value / _UNIT_SIZE[unit]


def flops_text(value: float | None, unit: str) -> str:
    if value is None:
        return NOTHING
    number = in_unit(value, unit)
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def reach_text(reach: Reach | None, unit: str) -> str:
    """ "1.2", "1.2 (2 of 3 seeds)" or "never"."""
    if reach is None:
        return NOTHING
    if reach.flops is None:
        return "never"
    part = "" if reach.reached == reach.seeds else f" ({reach.reached} of {reach.seeds} seeds)"
    return flops_text(reach.flops, unit) + part


def megabytes(value: int | None) -> str:
    return NOTHING if not value else f"{value / 1e6:.0f}"


# -- renderers ---------------------------------------------------------------------------------------------------------


def to_markdown(table: TextTable) -> str:
    """A GitHub-flavoured Markdown table under a heading."""
    lines = [f"### {_markdown(table.title)}", "", _line(table.head), _line(["---"] + ["---:"] * (len(table.head) - 1))]
    lines += [_line(row) for row in table.body]
    return "\n".join([*lines, "", *([_markdown(table.caption), ""] if table.caption else [])])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown(cell) if set(cell) - set("-:") else cell for cell in cells) + " |"


def _markdown(text: str) -> str:
    """Text with what Markdown or HTML would take for markup made harmless."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|" else letter for letter in escaped)


def to_html(table: TextTable) -> str:
    """An HTML table with heading and caption; every text escaped."""
    head = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in table.head)
    body = "".join(
        f"<tr{' class=floor' if row[0].startswith('floor: ') else ''}><th scope='row'>{html.escape(row[0])}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.body
    )
    caption = f"<p class='caption'>{html.escape(table.caption)}</p>" if table.caption else ""
    return (
        f"<section><h2>{html.escape(table.title)}</h2><div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{caption}</section>"
    )


def to_rich(table: TextTable, width: int) -> list[RichTable]:
    """Tables for a terminal of `width` columns: one, or two (quality, then cost) where one would not fit."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    widths = [max(len(row[column]) for row in (table.head, *table.body)) + 3 for column in range(len(table.head))]
    if table.cut and sum(widths) > width:
        front = replace(
            table, head=table.head[: table.cut], body=tuple(row[: table.cut] for row in table.body), caption="", cut=0
        )
        rest = [row for row in table.body if any(cell != NOTHING for cell in row[table.cut :])]
        back = replace(
            table,
            title=f"{table.title.split(':')[0]}: what it cost",
            head=(table.head[0], *table.head[table.cut :]),
            body=tuple((row[0], *row[table.cut :]) for row in rest),
            cut=0,
        )
        return [*to_rich(front, width), *to_rich(back, width)]
    caption = Text(table.caption) if table.caption else None
    shown = Table(
        title=Text(table.title),
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column, name in enumerate(table.head):
        shown.add_column(Text(name), justify="right" if column else "left", overflow="fold")
    for row in table.body:
        cells = row if sum(widths) <= width else [cell.replace(" [", "\n[") for cell in row]
        shown.add_row(
            *[Text(cell) for cell in cells], style="dim" if any(cell.startswith("floor: ") for cell in row) else None
        )
    return [shown]
