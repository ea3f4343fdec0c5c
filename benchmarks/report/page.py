"""A page: what a report says, before it becomes Markdown, HTML (`report/html.py`) or text on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report.chart import Chart
from benchmarks.report.gallery import Gallery
from benchmarks.report.text_table import TextTable, escaped, markdown_list, print_tables, to_markdown

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Page:
    """The parts of a page, in the order in which they are shown.

    Attributes:
        tables: the tables.
        remarks: what a reader must know of the records: holes, mixed data.
        metrics: a line for each definition of a metric.
        notes: paragraphs.
        provenance: label → text.
        sentence: what it comes to, in one sentence, on top.
        title, name, origin: what HTML has on top: a heading, what the page is about ("vqa/default"), one sentence.
        verdict: "holds", "fails" or "undecided", in which colour HTML shows the sentence; "" = none.
        finding: what was found where the sentence decides nothing, for HTML and the terminal; "" = nothing.
        lead: tables that HTML alone has, before the charts.
        charts: what HTML draws.
        charts_title: the heading above them.
        gallery: what the model is asked, in HTML; None = the runs kept no examples.
        reproduce: (what it does, command) that make the page's numbers again, in HTML.
        links: (text, address relative to the page), in HTML.
    """

    tables: tuple[TextTable, ...]
    remarks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    sentence: str = ""
    title: str = ""
    name: str = ""
    origin: str = ""
    verdict: str = ""
    finding: str = ""
    lead: tuple[TextTable, ...] = ()
    charts: tuple[Chart, ...] = ()
    charts_title: str = "Quality against training FLOPs"
    gallery: Gallery | None = None
    reproduce: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    @property
    def said(self) -> list[str]:
        """What comes first in HTML and last on a terminal: the verdict; without one, the finding, and why."""
        found = [self.sentence] if self.verdict else [self.finding, self.sentence]
        return [text for text in found if text]


def page_to_markdown(page: Page) -> str:
    """The tables, then each other part as a list under a heading."""
    parts = [f"**{escaped(page.sentence)}**\n"] if page.sentence else []
    parts += [to_markdown(table) for table in page.tables]
    for title, lines in (
        ("Holes and remarks", page.remarks),
        ("Metrics", page.metrics),
        ("Notes", page.notes),
        ("Provenance", [f"{label}: {text}" for label, text in page.provenance.items()]),
    ):
        parts += markdown_list(title, lines)
    return "\n".join(parts)


def print_page(page: Page, console: Console) -> None:
    """Tables, remarks and notes on a terminal."""
    print_tables(page.tables, console)
    for remark in page.remarks:
        console.print(f"! {remark}", markup=False, highlight=False, soft_wrap=True)
    for note in page.notes:
        console.print(note, markup=False, highlight=False)


def print_finding(page: Page, where: Path, console: Console) -> None:
    """The last lines on a terminal: what was found, and the page to look at."""
    console.print()
    for text in page.said:
        console.print(text, markup=False, highlight=False)
    console.print(f"Look at {where}", markup=False, highlight=False, soft_wrap=True)
