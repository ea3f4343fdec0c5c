"""`preview`: random examples with their texts, as one HTML page and one PNG contact sheet."""

from __future__ import annotations

import base64
import html
import io
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.call import adapter_source, call_examples
from data_prep.decode import without_svg
from mt2st.data.card import Adapter, Example
from mt2st.data.images import DEFAULT_MAX_PIXELS, ImageError, load_rgb
from mt2st.errors import check_range
from mt2st.files import atomic_path, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_SIDE = 160  # pixels
_COLUMNS = 6
_LINE_CHARACTERS = 26
_MAX_CAPTIONS = 5

_STYLE = """body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:1.2em}
figure{margin:0}img{width:160px;height:160px;object-fit:contain;background:#f4f4f4}
figcaption{overflow-wrap:anywhere}small{color:#666}.bad{color:#a00}"""


def preview(
    adapter: Adapter,
    out: Path,
    *,
    source: Path | None = None,
    options: dict[str, Any] | None = None,
    splits: Sequence[str] | None = None,
    count: int = 24,
    seed: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> tuple[Path, Path]:
    """Write `count` random examples of each of `splits` (None: all); larger images than `max_pixels` are named, not
    shown.

    Returns:
        (out/<name>.html, out/<name>.png)
    """
    check_range("count", count, 1, 1000, "give the number of examples to show of each split")
    card = adapter.CARD
    folder = adapter_source(adapter, source)
    sections, sheet = [], []
    chosen = tuple(card.splits) if splits is None else tuple(splits)
    for split in chosen:
        drawn = sample(call_examples(adapter, split, folder, options or {}, THUMBNAIL_SIDE), count, seed)
        shown = [(example, *_thumbnail(example, max_pixels)) for example in drawn]
        sections.append(f"<h2>{_escape(split)}</h2><main>{''.join(_figure(*item) for item in shown)}</main>")
        sheet.extend(shown[: max(1, count // len(chosen))])
    facts = f"{card.task} · revision {card.revision} · licence {card.licence}"
    head = f"<h1>{_escape(card.title)}</h1><p>{_escape(facts)}</p><p><small>{_escape(card.notes)}</small></p>"
    sources = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy = f'<meta http-equiv="Content-Security-Policy" content="{sources}">'
    title = f"<title>{_escape(card.title)}</title>"
    top = f'<!doctype html><html lang="en"><meta charset="utf-8">{policy}{title}<style>{_STYLE}</style>'
    page = f"{top}{head}{''.join(sections)}</html>\n"
    page_path, sheet_path = out / f"{card.name}.html", out / f"{card.name}.png"
    write_text(page_path, page)
    with atomic_path(sheet_path) as partial:
        contact_sheet([(picture, _summary(example)) for example, picture, _ in sheet]).save(partial, format="PNG")
    return page_path, sheet_path


def sample(examples: Iterable[Example], count: int, seed: int) -> list[Example]:
    """`count` random examples in their order, in one pass and in memory for `count` of them (Vitter's algorithm R)."""
    chance = random.Random(seed)
    kept: list[tuple[int, Example]] = []
    for number, example in enumerate(examples):
        if len(kept) < count:
            kept.append((number, example))
        elif (at := chance.randrange(number + 1)) < count:
            kept[at] = (number, example)
    return [example for _, example in sorted(kept, key=lambda item: item[0])]


def contact_sheet(pictures: list[tuple[Image | None, str]]) -> Image:
    """A grid of thumbnails with one or two lines of text under each."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    cell, band = THUMBNAIL_SIDE + 12, 34
    rows = max(1, -(-len(pictures) // _COLUMNS))
    sheet = Pillow.new("RGB", (_COLUMNS * cell, rows * (cell + band)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, text) in enumerate(pictures):
        left, top = (number % _COLUMNS) * cell + 6, (number // _COLUMNS) * (cell + band) + 6
        if picture is not None:
            sheet.paste(
                picture, (left + (THUMBNAIL_SIDE - picture.width) // 2, top + (THUMBNAIL_SIDE - picture.height) // 2)
            )
        lines = [text[at : at + _LINE_CHARACTERS] for at in range(0, len(text), _LINE_CHARACTERS)][:2]
        draw.multiline_text((left, top + THUMBNAIL_SIDE + 2), "\n".join(lines), fill="black")
    return sheet


def _thumbnail(example: Example, max_pixels: int) -> tuple[Image | None, str]:
    """The picture, at most `THUMBNAIL_SIDE` each way, and why there is none."""
    if example.image is None:
        return None, "no image"
    try:
        name = str(example.image) if isinstance(example.image, Path) else "the image"
        image = without_svg(example.image, side=THUMBNAIL_SIDE, max_pixels=max_pixels, name=name)
        picture = load_rgb(image, max_pixels=max_pixels, name=name)
    except ImageError as error:
        return None, str(error)
    scale = THUMBNAIL_SIDE / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))), ""


def _figure(example: Example, picture: Image | None, why_none: str) -> str:
    image = f'<p class="bad">{_escape(why_none)}</p>'
    if picture is not None:
        stream = io.BytesIO()
        picture.save(stream, format="PNG")
        image = f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
    return f"<figure>{image}<figcaption>{'<br>'.join(_text_lines(example))}</figcaption></figure>"


def _text_lines(example: Example) -> Iterator[str]:
    yield f"<small>{_escape(example.image_id)}</small>"
    yield from (_escape(caption) for caption in example.captions[:_MAX_CAPTIONS])
    if len(example.captions) > _MAX_CAPTIONS:
        yield f"<small>and {len(example.captions) - _MAX_CAPTIONS} more captions</small>"
    if example.question is not None:
        yield f"<b>{_escape(example.question)}</b>"
        yield _escape(", ".join(dict.fromkeys(answer.text for answer in example.answers)) or "(unlabelled)")
    if example.choices:
        yield f"<small>choices: {_escape(', '.join(example.choices))}</small>"
    if example.label is not None:
        yield f"<small>class {_escape(example.label)}</small>"


def _summary(example: Example) -> str:
    text = example.question or next(iter(example.captions), "") or example.label or example.image_id
    # Pillow's built-in font knows Latin only; the page has the full text.
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
