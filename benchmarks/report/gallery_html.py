"""The gallery as HTML: a card for each item, every text escaped, each picture in the page once."""

from __future__ import annotations

import base64
import html

from benchmarks.report.gallery import Asked, Gallery, Given

_RIGHT, _WRONG = 0.999, 0.001  # scores from and up to which an answer is right or wrong


def gallery_html(gallery: Gallery) -> str:
    """A section; items stand in the order in which strategies differ most, which a script can change."""
    worst = sorted(gallery.asked, key=lambda item: (round(item.score, 9), -_certain(item), item.example.item))
    written = sorted(gallery.asked, key=lambda item: item.example.item)
    places = {id(item): (worst.index(item), written.index(item)) for item in gallery.asked}
    pictures = _classes(gallery)
    cards = "".join(_card(item, place, *places[id(item)], pictures) for place, item in enumerate(gallery.asked))
    about = (
        f"{len(gallery.asked)} items of the test split, drawn once for all runs, with the answers of the runs of "
        f"{gallery.view}. ✓ right, ✗ wrong, ◐ in part or by some seeds. No number of the tables comes from this choice."
    )
    return (
        f"<section class='asked' data-kinds='{html.escape(gallery.kinds)}'><h2>What the model is asked</h2>"
        f"<p class='caption'>{html.escape(about)}</p><ol class='gallery'>{cards}</ol></section>"
    )


def gallery_rules(gallery: Gallery | None) -> str:
    """The style rules that hold the pictures."""
    if gallery is None:
        return ""
    data = {key: base64.b64encode(content).decode() for key, content in gallery.pictures.items()}
    return "".join(
        f".{name} {{ background-image: url(data:image/png;base64,{data[key]}); }}\n"
        for key, name in _classes(gallery).items()
    )


def _classes(gallery: Gallery) -> dict[str, str]:
    """Picture → the class that shows it."""
    return {key: f"p{place}" for place, key in enumerate(gallery.pictures)}


def _certain(item: Asked) -> float:
    """How sure the model is of the item's answer, as far as it says so."""
    return item.example.confidence or 0.0


def _card(item: Asked, differ: int, worst: int, written: int, pictures: dict[str, str]) -> str:
    example = item.example
    shown = "".join(_picture(key, pictures, "picture of the question") for key in example.pictures)
    right = html.escape(" · ".join(example.right))
    right += "".join(_picture(key, pictures, "the right picture") for key in example.right_pictures)
    kind = f"<p class='soft'>{html.escape(example.kind)}</p>" if example.kind else ""
    all_right = int(all(given.score >= _RIGHT for given in item.given))
    given = "".join(_given(each, set(example.right_pictures), pictures) for each in item.given)
    return (
        f"<li class='item' data-kind='{html.escape(example.kind)}' data-differ='{differ}' data-worst='{worst}' "
        f"data-written='{written}' data-right='{all_right}'><h3>{html.escape(example.question)}</h3>"
        f"<div class='shown'>{shown}<div>{kind}<p>Right: {right}</p></div></div><ul class='given'>{given}</ul></li>"
    )


def _given(given: Given, right: set[str], pictures: dict[str, str]) -> str:
    if given.score >= _RIGHT:
        mark, kind, word = "✓", "right", "right"
    elif given.score <= _WRONG:
        mark, kind, word = "✗", "wrong", "wrong"
    else:
        mark, kind, word = "◐", "part", f"{given.score:.0%} right"
    answer = html.escape(given.answer)
    answer += "".join(
        _picture(key, pictures, "right" if key in right else "another", "hit" if key in right else "")
        for key in given.pictures
    )
    more = f" <span class='soft'>{html.escape(given.more)}</span>" if given.more else ""
    return (
        f"<li><span class='{kind}' title='{word}' role='img' aria-label='{word}'>{mark}</span>"
        f"<span>{html.escape(given.strategy)}</span><span class='tops'>{answer}{more}</span></li>"
    )


def _picture(key: str, pictures: dict[str, str], alt: str, kind: str = "") -> str:
    if key not in pictures:
        return ""
    words = f" role='img' aria-label='{html.escape(alt)}'" if alt else " aria-hidden='true'"
    return f"<span class='picture {pictures[key]}{kind and f' {kind}'}'{words}></span>"
