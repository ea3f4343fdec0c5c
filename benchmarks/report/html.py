"""One self-contained HTML page: tables, pictures inline, definitions, notes, provenance.

Every text is escaped; there are no scripts.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.report.page import Page
from benchmarks.report.text_table import TextTable
from mt2st.files import write_text

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PICTURE_BYTES = 8_000_000
# The browser is told as well: inline styles and inline pictures only. A text that was not escaped could not run.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; background: var(--soft); }
th:first-child { text-align: left; } tr.floor { opacity: .7; font-style: italic; } tbody th { font-weight: 600; }
.caption, dd { color: #777; } img { max-width: 100%; background: white; border-radius: 4px; } figure { margin: 1rem 0; }
.remarks li { color: #b04a00; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dd { margin: 0; }
"""


def write_html(page: Page, pictures: Sequence[tuple[str, Path]], path: Path) -> None:
    """Write the page, atomically.

    Args:
        pictures: (caption, PNG file) in order; a file that is no PNG or larger than 8 MB is named instead of shown.
    """
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<meta http-equiv='Content-Security-Policy' content=\"{_POLICY}\">",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{html.escape(f'{page.title}: {page.name}')}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{html.escape(page.title)}</h1>",
        f"<p>{html.escape(page.origin)}</p>",
    ]
    if page.sentence:
        parts.append(f"<p><strong>{html.escape(page.sentence)}</strong></p>")
    if page.remarks:
        remarks = _each("li", page.remarks)
        parts.append(f"<section><h2>Holes and remarks</h2><ul class='remarks'>{remarks}</ul></section>")
    figures = [_figure(caption, file) for caption, file in pictures]
    parts += [*figures[:1], *map(to_html, page.tables), *figures[1:]]
    parts.append(f"<section><h2>Metrics</h2><ul>{_each('li', page.metrics)}</ul></section>")
    if page.notes:
        parts.append(f"<section><h2>Notes</h2>{_each('p', page.notes)}</section>")
    provenance = "".join(_each("dt", [label]) + _each("dd", [text]) for label, text in page.provenance.items())
    parts.append(f"<section><h2>Provenance</h2><dl>{provenance}</dl></section></main></body></html>")
    write_text(path, "\n".join(parts) + "\n")


def _each(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


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


def _figure(caption: str, file: Path) -> str:
    content = file.read_bytes()
    if not content.startswith(_PNG) or len(content) > _LARGEST_PICTURE_BYTES:
        why = f"{caption}: {file.name} is no PNG of at most 8 MB and is not shown."
        return f"<p class='caption'>{html.escape(why)}</p>"
    data = base64.b64encode(content).decode()
    text = html.escape(caption)
    return f"<figure><img alt='{text}' src='data:image/png;base64,{data}'><figcaption>{text}</figcaption></figure>"
