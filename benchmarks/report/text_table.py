"""Tables of text: one structure, rendered as Markdown and for the terminal. `report/html.py` renders it as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

NOTHING = "–"
_PROSE = 36  # longer cells are sentences, which may be broken between words


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title, head, body, caption: the texts; every row of `body` is as long as `head`, whose first column is names.
        cut: how many columns stay together in front when a narrow terminal gets the table in two parts; 0 = never cut.
        faint: places in `body` of rows that are shown less loud, such as floors.
        rest: what the second of the two parts is about.
        tall: the same turned round, a row for each kind of item and the worst first; Markdown alone shows it as it is.
        names: how many columns in front name a row; a table that goes on below on a terminal has them again.
    """

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    caption: str = ""
    cut: int = 0
    faint: frozenset[int] = frozenset()
    rest: str = "what it cost"
    tall: TextTable | None = None
    names: int = 1


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


def ends(table: TextTable, most: int = 8) -> TextTable:
    """The first and the last rows of a table that has more than `most`, and says so in its title."""
    if len(table.body) <= most:
        return table
    half = most // 2
    title = f"{table.title}: the {half} worst and the {half} best of {len(table.body)}; the report has all"
    return replace(table, title=title, body=(*table.body[:half], *table.body[-half:]), faint=frozenset())


def to_rich(table: TextTable, width: int) -> list[RichTable]:
    """Tables for a terminal of `width` columns: one, or several below each other where one would not fit.

    A table with `cut` is divided there (quality, then cost). Whatever is still too wide goes on below, with the names
    of the rows again, so that no column is squeezed to a few letters.
    """
    if table.tall is not None:
        return to_rich(ends(table.tall), width)
    if table.cut and sum(_natural(table)) + 2 * len(table.head) + 1 > width:
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
    parts = _parts(table, width)
    shown = []
    for number, columns in enumerate(parts, start=1):
        part = replace(
            table,
            title=table.title if number == 1 else f"{table.title.split(':')[0]} (continued)",
            head=tuple(table.head[column] for column in columns),
            body=tuple(tuple(row[column] for column in columns) for row in table.body),
            caption=table.caption if number == len(parts) else "",
        )
        shown.append(_rich(part, width))
    return shown


def _natural(table: TextTable) -> list[int]:
    """The width of each column on lines that are not broken."""
    return [max(len(row[column]) for row in (table.head, *table.body)) for column in range(len(table.head))]


def _least(table: TextTable) -> list[int]:
    """The width that each column needs: its longest piece that is read as one, words of heads and prose apart."""
    least = []
    for column, head in enumerate(table.head):
        pieces = [*head.split(), ""]
        for row in table.body:
            cell = row[column]
            prose = len(cell) > _PROSE or column < table.names
            pieces += cell.split() if prose else _broken(cell).split("\n")
        least.append(min(max(map(len, pieces)), _PROSE))
    return least


def _broken(cell: str) -> str:
    """A cell on two lines: a difference, and its interval below."""
    return cell.replace(" [", "\n[")


def _parts(table: TextTable, width: int) -> list[list[int]]:
    """The columns that stand beside each other, each time with the first one."""
    if sum(_natural(table)) + 2 * len(table.head) + 1 <= width:
        return [list(range(len(table.head)))]
    least = _least(table)
    front = list(range(table.names))
    parts = [list(front)]
    for column in range(table.names, len(table.head)):
        taken = sum(least[each] + 2 for each in (*parts[-1], column)) + 1
        if taken > width and len(parts[-1]) > len(front):
            parts.append(list(front))
        parts[-1].append(column)
    return parts


def _rich(table: TextTable, width: int) -> RichTable:
    """One table; where its lines do not fit, every column gets what it needs, and the widest ones the rest."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    natural, room = _natural(table), width - 2 * len(table.head) - 1
    fits = sum(natural) <= room
    widths = natural if fits else _least(table)
    while not fits and sum(widths) < room:
        wanting = [column for column, own in enumerate(widths) if own < natural[column]]
        if not wanting:
            break
        widths[min(wanting, key=lambda column: widths[column] / natural[column])] += 1
    shown = Table(
        title=Text(table.title),
        caption=Text(table.caption) if table.caption else None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column, name in enumerate(table.head):
        justify: Literal["right", "left"] = "left" if column < table.names else "right"
        own = None if fits else widths[column]
        shown.add_column(Text(name), justify=justify, overflow="fold", width=own)
    for place, row in enumerate(table.body):
        cells = row if fits else [_broken(cell) for cell in row]
        shown.add_row(*[Text(cell) for cell in cells], style="dim" if place in table.faint else None)
    return shown


def print_tables(tables: Sequence[TextTable], console: Console) -> None:
    """Print tables on a terminal, each as wide as it is."""
    for table in tables:
        for part in to_rich(table, console.width):
            console.print(part)
            console.print()
