"""Tables of text: one structure, rendered for the terminal, as Markdown and as HTML; and those of a summary."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.report.rows import EQUAL_BUDGET, EQUAL_STEPS, MULTI_TASK, SINGLE_TASK, Reach, Row
from benchmarks.report.spec import Metric, ReportSpec
from benchmarks.report.statistics import Interval
from benchmarks.report.summary import Summary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

NOTHING = "–"
VIEW_TITLES = {
    EQUAL_BUDGET: "Equal budget: every strategy gets the same training FLOPs",
    EQUAL_STEPS: f"Equal steps: every strategy runs as long as {MULTI_TASK}",
}
_UNITS = ((1e15, "PFLOPs"), (1e11, "TFLOPs"), (0.0, "GFLOPs"))
_UNIT_SIZE = {"PFLOPs": 1e15, "TFLOPs": 1e12, "GFLOPs": 1e9}


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title, head, body, caption: the texts; every row of `body` is as long as `head`, whose first column is names.
        cut: how many columns stay together in front when a narrow terminal gets the table in two parts; 0 = never cut.
        faint: places in `body` of rows that are shown less loud, such as floors.
    """

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    caption: str = ""
    cut: int = 0
    faint: frozenset[int] = frozenset()


def tables(summary: Summary, spec: ReportSpec) -> list[TextTable]:
    """All tables of a report: each view, further metrics, the breakdowns, and the schedules."""
    found = []
    for view in summary.views:
        found.append(view_table(summary, spec, view))
    for view in summary.views:
        found += [*further_metrics(summary, spec, view), *group_tables(summary, spec, view)]
    return [*found, *schedule_table(summary)]


def view_table(summary: Summary, spec: ReportSpec, view: str) -> TextTable:
    """Strategy by strategy: what it reached, against STL and MTL, and what it cost; then the floors and the holes."""
    rows, metric = summary.of_view(view), spec.primary
    unit = flops_unit([row.flops for row in rows])
    budget = view == EQUAL_BUDGET
    full = any(row.to_full_multi for row in rows)
    head = ["strategy", "seeds", f"{with_unit(metric)} (95 %)", f"Δ to {SINGLE_TASK}", f"Δ to {MULTI_TASK}"]
    cut = len(head) + full
    head += [f"Δ to full {MULTI_TASK}"] if full else []
    head += ["steps", unit]
    head += (
        ([f"saved of full {MULTI_TASK}"] if full else [])
        if budget
        else [f"saved of {MULTI_TASK}", f"saved of {SINGLE_TASK}"]
    )
    head += [f"{unit} to {MULTI_TASK}'s score", "train s", "peak MB"]
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
    floors = [(name, values[metric.id]) for name, values in summary.floors.items() if metric.id in values]
    body += [(f"floor: {name}", NOTHING, metric.text(value), *[NOTHING] * (len(head) - 3)) for name, value in floors]
    faint = frozenset(range(len(rows), len(body)))
    title, caption = VIEW_TITLES.get(view, view), _caption(summary, spec, view)
    return TextTable(title, tuple(head), tuple(body), caption, cut, faint)


def _caption(summary: Summary, spec: ReportSpec, view: str) -> str:
    parts = [
        "Means over seeds with 95 % intervals; differences are paired by seed and item, in points of the metric's "
        "scale."
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
    head = ("strategy", *[with_direction(column) for column in columns])
    caption = "" if all(column.higher_is_better for column in columns) else "↓ lower is better."
    faint = frozenset(range(len(rows), len(body)))
    return [TextTable(f"Further metrics, {view}", head, tuple(body), caption, faint=faint)]


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


def schedule_table(summary: Summary) -> list[TextTable]:
    """Strategy × auxiliary → its schedule; none where the records hold no schedules."""
    auxiliaries = list(dict.fromkeys(name for texts in summary.schedules.values() for name in texts))
    if not auxiliaries:
        return []
    body = [
        (strategy, *[texts.get(name, NOTHING) for name in auxiliaries]) for strategy, texts in summary.schedules.items()
    ]
    return [TextTable("Schedules of the auxiliaries", ("strategy", *auxiliaries), tuple(body))]


def metric_lines(metrics: Sequence[Metric]) -> list[str]:
    """One line for each definition behind the metrics: id, columns, sentence, unit, direction, range and source."""
    by_definition: dict[tuple[str, str], list[Metric]] = {}
    for metric in metrics:
        known = metric.registered
        by_definition.setdefault((known.id if known else metric.id, metric.definition), []).append(metric)
    lines = []
    for (name, definition), columns in by_definition.items():
        known = columns[0].registered
        # A column whose id is more than the definition's says which it is.
        labels = ", ".join(
            column.label + (f" = {column.id}" if column.id != name else "")
            for column in columns
            if column.label != name
        )
        direction = "higher" if columns[0].higher_is_better else "lower"
        line = f"{name}{f' ({labels})' if labels else ''}: {definition}; {direction} is better"
        if known is not None:
            line += f"; unit: {known.unit}, from {_end(known.worst)} (worst) to {_end(known.best)} (best)"
            line += f"; source: {known.source}" if known.source else ""
        lines.append(line + ".")
    return lines


def _end(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:g}"


# -- cells -------------------------------------------------------------------------------------------------------------


def with_unit(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def with_direction(metric: Metric) -> str:
    """A column's head: "ECE ↓", "hit@5, %"."""
    return with_unit(metric) + ("" if metric.higher_is_better else " ↓")


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


def markdown_list(title: str, lines: Sequence[str]) -> list[str]:
    """The lines of a bulleted list under a heading; none without lines."""
    bullets = [f"- {' '.join(line.split()).replace('<', '&lt;')}" for line in lines]
    return [f"### {title}", "", *bullets, ""] if lines else []


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
        f"<tr{' class=floor' if place in table.faint else ''}><th scope='row'>{html.escape(row[0])}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for place, row in enumerate(table.body)
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
        rest = [row for place, row in enumerate(table.body) if place not in table.faint]
        back = replace(
            table,
            title=f"{table.title.split(':')[0]}: what it cost",
            head=(table.head[0], *table.head[table.cut :]),
            body=tuple((row[0], *row[table.cut :]) for row in rest),
            cut=0,
            faint=frozenset(),
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
    for place, row in enumerate(table.body):
        cells = row if sum(widths) <= width else [cell.replace(" [", "\n[") for cell in row]
        shown.add_row(*[Text(cell) for cell in cells], style="dim" if place in table.faint else None)
    return [shown]


def print_tables(tables: Sequence[TextTable], console: Console) -> None:
    """Print tables on a terminal, each as wide as it is."""
    for table in tables:
        for part in to_rich(table, console.width):
            console.print(part)
            console.print()
