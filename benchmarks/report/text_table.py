"""Tables of text: one structure, rendered as Markdown and for the terminal. `report/html.py` renders it as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

NOTHING = "–"


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title, head, body, caption: the texts; every row of `body` is as long as `head`, whose first column is names.
        cut: how many columns stay together in front when a narrow terminal gets the table in two parts; 0 = never cut.
        faint: places in `body` of rows that are shown less loud, such as floors.
        rest: what the second of the two parts is about.
    """

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    caption: str = ""
    cut: int = 0
    faint: frozenset[int] = frozenset()
    rest: str = "what it cost"


def to_markdown(table: TextTable) -> str:
    """A GitHub-flavoured Markdown table under a heading."""
    lines = [f"### {escaped(table.title)}", "", _line(table.head), _line(["---"] + ["---:"] * (len(table.head) - 1))]
    lines += [_line(row) for row in table.body]
    return "\n".join([*lines, "", *([escaped(table.caption), ""] if table.caption else [])])


def markdown_list(title: str, lines: Sequence[str]) -> list[str]:
    """The lines of a bulleted list under a heading; none without lines."""
    bullets = [f"- {' '.join(line.split()).replace('<', '&lt;')}" for line in lines]
    return [f"### {title}", "", *bullets, ""] if lines else []


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(cell) if set(cell) - set("-:") else cell for cell in cells) + " |"


def escaped(text: str) -> str:
    """Text with what Markdown or HTML would take for markup made harmless."""
    safe = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|" else letter for letter in safe)


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
            title=f"{table.title.split(':')[0]}: {table.rest}",
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
