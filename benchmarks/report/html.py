"""One self-contained HTML page: the finding, charts, tables, pictures inline, a gallery, definitions, provenance.

Every text is escaped. The one script and the one style are files of this folder, written into the page; the browser is
told their hashes and runs nothing else, and it asks no host for anything. Without scripts all is there to be read.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from benchmarks.report.chart import chart_html, colour_rules, colours_of
from benchmarks.report.gallery_html import gallery_html, gallery_rules
from benchmarks.report.page import Page
from benchmarks.report.text_table import NOTHING, TextTable
from mt2st.files import write_text

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PICTURE_BYTES = 8_000_000
_SENTENCE = 40  # letters from which on a cell is prose


def write_html(page: Page, pictures: Sequence[tuple[str, Path]], path: Path) -> None:
    """Write the page, atomically.

    Args:
        pictures: (caption, PNG file) in order; a file that is no PNG or larger than 8 MB is named instead of shown.
    """
    style = _asset("page.css") + colour_rules(colours_of(page.charts)) + gallery_rules(page.gallery)
    script = _asset("page.js")
    # A text that was not escaped could neither run nor load anything.
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>",
        f"<title>{html.escape(f'{page.title}: {page.name}')}</title><style>{style}</style></head><body><main>",
        f"<h1>{html.escape(page.title)}</h1>",
        *_finding(page),
        f"<p class='soft'>{html.escape(page.origin)}</p>",
    ]
    if page.links:
        parts.append(f"<nav><ul>{''.join(_link(text, address) for text, address in page.links)}</ul></nav>")
    if page.remarks:
        remarks = _each("li", page.remarks)
        parts.append(f"<section><h2>Holes and remarks</h2><ul class='remarks'>{remarks}</ul></section>")
    parts += map(to_html, page.lead)
    if charts := "".join(chart_html(chart) for chart in page.charts):
        parts.append(f"<section><h2>{html.escape(page.charts_title)}</h2><div class='charts'>{charts}</div></section>")
    parts += map(to_html, page.tables)
    if page.gallery is not None:
        parts.append(gallery_html(page.gallery))
    if pictures:
        figures = "".join(_figure(caption, file) for caption, file in pictures)
        parts.append(f"<section><h2>Pictures</h2><details><summary>Show</summary>{figures}</details></section>")
    parts.append(f"<section><h2>Metrics</h2><ul>{_each('li', page.metrics)}</ul></section>")
    if page.notes:
        parts.append(f"<section><h2>Notes</h2>{_each('p', page.notes)}</section>")
    if page.reproduce:
        lines = "".join(f"<p>{html.escape(what)}</p><pre>{html.escape(line)}</pre>" for what, line in page.reproduce)
        parts.append(f"<section id='reproduce'><h2>How to reproduce</h2>{lines}</section>")
    provenance = "".join(_each("dt", [label]) + _each("dd", [text]) for label, text in page.provenance.items())
    if provenance:
        parts.append(f"<section><h2>Provenance</h2><dl>{provenance}</dl></section>")
    parts.append(f"</main><script>{script}</script></body></html>")
    write_text(path, "\n".join(parts) + "\n")


@lru_cache(maxsize=4)
def _asset(name: str) -> str:
    """A file of this folder; without what would end its element."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    assert "</" not in text, f"{name} would end its own element"
    return text


def _hash(text: str) -> str:
    """The text's hash as a content security policy names it."""
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"


def _finding(page: Page) -> list[str]:
    kind = f" {page.verdict}" if page.verdict else ""
    said = " ".join(
        f"<strong>{html.escape(text)}</strong>" if not place else html.escape(text)
        for place, text in enumerate(page.said)
    )
    return [f"<p class='finding{kind}'>{said}</p>"] if said else []


def _link(text: str, address: str) -> str:
    return f"<li><a href='{html.escape(address)}'>{html.escape(text)}</a></li>"


def _each(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


def to_html(table: TextTable) -> str:
    """An HTML table with heading and caption, kinds of items below each other where there are many; texts escaped."""
    table = table.tall or table
    prose = [any(len(row[column]) > _SENTENCE for row in table.body) for column in range(len(table.head))]
    head = "".join(
        f"<th scope='col'{' class=words' * words}>{html.escape(cell)}</th>" for cell, words in zip(table.head, prose)
    )
    body = "".join(
        f"<tr{' class=floor' if place in table.faint else ''}><th scope='row'>{html.escape(row[0])}</th>"
        + "".join(_cell(cell, name) for cell, name in zip(row[1:], table.head[1:]))
        + "</tr>"
        for place, row in enumerate(table.body)
    )
    caption = f"<p class='caption'>{html.escape(table.caption)}</p>" if table.caption else ""
    return (
        f"<section><h2>{html.escape(table.title)}</h2><div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{caption}</section>"
    )


def _cell(cell: str, head: str) -> str:
    """A cell with its column's head, which a narrow window shows beside it; it breaks before an interval alone."""
    kind = " class='empty'" if cell == NOTHING else " class='words'" if len(cell) > _SENTENCE else ""
    pieces = [cell] if len(cell) > _SENTENCE else re.split(r" (?=\[)", cell)
    text = " ".join(f"<span class='whole'>{html.escape(piece)}</span>" for piece in pieces)
    if len(cell) > _SENTENCE:
        text = html.escape(cell)
    return f"<td{kind} data-head='{html.escape(head)}'><span>{text}</span></td>"


def _figure(caption: str, file: Path) -> str:
    content = file.read_bytes()
    if not content.startswith(_PNG) or len(content) > _LARGEST_PICTURE_BYTES:
        why = f"{caption}: {file.name} is no PNG of at most 8 MB and is not shown."
        return f"<p class='caption'>{html.escape(why)}</p>"
    data = base64.b64encode(content).decode()
    text = html.escape(caption)
    return f"<figure><img alt='{text}' src='data:image/png;base64,{data}'><figcaption>{text}</figcaption></figure>"
