"""What the demo's functions found, as HTML; every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from benchmarks.demo.functions import Asked, Found, Why
from benchmarks.demo.uploads import data_address
from benchmarks.records.examples import Example
from mt2st.errors import Mt2stError

_RIGHT = 0.999  # a score from which an answer is right
_PREVIEW = 320  # pixels of the longer side
_FOR, _AGAINST = "#e66101", "#5e3c99"  # orange and purple: told apart by everybody, on light and on dark
_STRONGEST = 3  # patches that are named
_NOTHING = 0.0005  # of probability or cosine: what is shown as 0.0 points


def said(make: Callable[[], str]) -> str:
    """What `make` gives, or its error in one line."""
    try:
        return make()
    except Mt2stError as error:
        return f"<p class='mt-error' role='alert'>{html.escape(str(error))}</p>"


def chosen(picture: Image.Image) -> str:
    """The picture that was chosen, as it was decoded."""
    width, height = picture.size
    small = picture.copy()
    small.thumbnail((_PREVIEW, _PREVIEW))
    return (
        f"<figure class='mt-chosen'><img src='{data_address(small)}' alt='the chosen picture'>"
        f"<figcaption>{width} × {height} pixels</figcaption></figure>"
    )


def answers(asked: Asked) -> str:
    """Answers with their probabilities, and beside them the right ones, where they are known."""
    rows = "".join(
        f"<li><span class='mt-name'>{html.escape(answer.text)}</span>"
        f"<span class='mt-bar' aria-hidden='true'><i style='width:{100 * answer.probability:.1f}%'></i></span>"
        f"<span class='mt-number'>{100 * answer.probability:.1f} %</span></li>"
        for answer in asked.answers
    )
    best = asked.answers[0].text
    known = _known(asked.example, best) if asked.example else ""
    return f"<p class='mt-best'>{html.escape(best)}</p>{known}<ol class='mt-answers'>{rows}</ol>"


def _known(example: Example, best: str) -> str:
    right = ", ".join(dict.fromkeys(example.right))
    mark = "✓ as here" if best in example.right else "✗ not as here"
    sure = f" ({100 * example.confidence:.0f} % sure)" if example.confidence is not None else ""
    was = "right" if example.score >= _RIGHT else "wrong" if example.score <= 1 - _RIGHT else "right in part"
    return (
        f"<p class='mt-known'>Right: <b>{html.escape(right)}</b> {mark}. In its test, on the picture in full colours, "
        f"this run said <b>{html.escape(example.given)}</b>{sure}, {was}.</p>"
    )


def hits(found: Found) -> str:
    """A gallery with scores."""
    cards = "".join(
        f"<li><img src='{data_address(hit.picture)}' alt='{html.escape(hit.name, quote=True)}'>"
        f"<span class='mt-number'>{hit.score:.3f}</span> <span class='mt-name'>{html.escape(hit.name)}</span></li>"
        for hit in found.hits
    )
    about = f"<p class='mt-soft'>The best {len(found.hits)} of {found.searched:,} pictures, by cosine.</p>"
    return f"{about}<ol class='mt-hits'>{cards}</ol>"


def side_by_side(parts: Sequence[tuple[str, str]]) -> str:
    """(name of a run, what it found), in columns that go below each other in a narrow window."""
    columns = "".join(f"<section><h3>{html.escape(name)}</h3>{part}</section>" for name, part in parts)
    return f"<div class='mt-pair'>{columns}</div>"


def map_of(why: Why) -> str:
    """The picture with its patches, and the strongest ones in words."""
    drops = why.seen.drops
    side = len(drops)
    largest = float(np.abs(drops).max())
    cells = "".join(
        f"<rect x='{column}' y='{row}' width='1' height='1' fill='{_FOR if drops[row, column] > 0 else _AGAINST}' "
        f"fill-opacity='{0.75 * abs(drops[row, column]) / largest if largest else 0:.3f}'>"
        f"<title>row {row + 1}, column {column + 1}: {_change(why, drops[row, column])}</title></rect>"
        for row in range(side)
        for column in range(side)
    )
    name = html.escape(why.seen.answer)
    label = f"the picture with the patches that matter for {why.seen.answer}"
    order = np.argsort(-drops, axis=None, kind="stable")[:_STRONGEST]
    rows = "".join(
        f"<li>row {place // side + 1}, column {place % side + 1}: {_change(why, drops.flat[place])}</li>"
        for place in order.tolist()
    )
    strongest = f"The strongest colour is {_change(why, largest, sign=False)}."
    if largest < _NOTHING:
        strongest = "No patch matters: hiding any one of them changes next to nothing."
    score = f"{100 * why.seen.score:.1f} %" if why.is_answer else f"cosine {why.seen.score:.3f}"
    return (
        f"<figure class='mt-why'><svg viewBox='0 0 {side} {side}' role='img' "
        f"aria-label='{html.escape(label, quote=True)}'><image href='{data_address(why.picture)}' width='{side}' "
        f"height='{side}' preserveAspectRatio='none'/>{cells}</svg><figcaption><p class='mt-best'>{name} "
        f"<span class='mt-number'>{score}</span></p><p class='mt-soft'>What hiding a patch does to it. "
        f"<span class='mt-for'>Orange</span>: it falls, so the patch speaks for it. <span class='mt-against'>Purple"
        f"</span>: it rises. {strongest}</p><p>The patches that speak "
        f"for it most:</p><ol>{rows}</ol></figcaption></figure>"
    )


def _change(why: Why, drop: float, *, sign: bool = True) -> str:
    """A drop as the change that hiding makes, in points of probability or of cosine."""
    change = -float(drop) if sign else float(drop)
    plus = "+" if sign else ""
    if why.is_answer:
        return f"{round(100 * change, 1) + 0.0:{plus}.1f} points"  # + 0.0: no minus before a zero
    return f"{round(change, 3) + 0.0:{plus}.3f}"


def example_buttons(pictures: Sequence[str], examples: Sequence[Example]) -> str:
    """A button for each example; its number is in data-index."""
    buttons = "".join(
        f"<li><button type='button' data-index='{number}'><img src='{picture}' alt=''>"
        f"<span>{html.escape(example.question)}</span></button></li>"
        for number, (picture, example) in enumerate(zip(pictures, examples, strict=True))
    )
    return f"<ul class='mt-examples'>{buttons}</ul>"
