"""What the model is asked: test items with the answers of every strategy, out of the runs' examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.records.examples import Example, Examples, read_examples
from mt2st.errors import Mt2stError


class Finished(Protocol):
    """A finished run."""

    @property
    def folder(self) -> Path: ...

    @property
    def strategy(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def views(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Given:
    """What a strategy answers to one item.

    Attributes:
        answer: its most frequent answer over seeds; "" where it gave pictures.
        score: mean over seeds, from 0 to 1.
        seeds: how many.
        more: what else is to be said: other seeds' answers, a rank, a confidence.
        pictures: keys of the pictures that the first seed gave, best first.
    """

    strategy: str
    answer: str
    score: float
    seeds: int
    more: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """One item: `example` says what is asked and what is right. Spread: of the strategies' scores."""

    example: Example
    given: tuple[Given, ...]

    @property
    def score(self) -> float:
        return float(np.mean([given.score for given in self.given]))

    @property
    def spread(self) -> float:
        return float(np.std([given.score for given in self.given]))


@dataclass(frozen=True)
class Gallery:
    """Items, those first at which the strategies differ most; the pictures they need; of which view."""

    asked: tuple[Asked, ...]
    pictures: Mapping[str, bytes]
    view: str
    kinds: str


def gallery_of(
    runs: Sequence[Finished], view: str, strategies: Sequence[str]
) -> tuple[Gallery | None, tuple[str, ...]]:
    """The gallery of a view's runs, and remarks on examples that cannot be read.

    Args:
        runs: finished runs of one suite.
        strategies: in the order in which they are shown.

    Returns:
        None in place of a gallery where no run kept examples.
    """
    found: dict[str, list[Examples]] = {}
    remarks = []
    for run in sorted((run for run in runs if view in run.views), key=lambda run: run.seed):
        try:
            examples = read_examples(run.folder)
        except Mt2stError as error:
            remarks.append(str(error))
            continue
        if examples is not None:
            found.setdefault(run.strategy, []).append(examples)
    by_item: dict[tuple[int, str], dict[str, list[Example]]] = {}
    for strategy in [*(name for name in strategies if name in found), *sorted(set(found) - set(strategies))]:
        for examples in found[strategy]:
            for item in examples.items:
                by_item.setdefault((item.item, item.question), {}).setdefault(strategy, []).append(item)
    asked = [
        Asked(next(iter(mine.values()))[0], tuple(_given(strategy, items) for strategy, items in mine.items()))
        for _, mine in sorted(by_item.items())
    ]
    if not asked:
        return None, tuple(remarks)
    asked.sort(key=lambda item: (-round(item.spread, 9), round(item.score, 9), item.example.item))
    pictures: dict[str, bytes] = {}
    for all_of_strategy in found.values():
        for examples in all_of_strategy:
            pictures = {**examples.pictures, **pictures}
    needed = {key for item in asked for key in _keys(item)}
    kinds = next(iter(found.values()))[0].kinds
    return Gallery(tuple(asked), {key: pictures[key] for key in sorted(needed & set(pictures))}, view, kinds), tuple(
        remarks
    )


def _keys(asked: Asked) -> list[str]:
    own = [*asked.example.pictures, *asked.example.right_pictures]
    return own + [key for given in asked.given for key in given.pictures]


def _given(strategy: str, items: Sequence[Example]) -> Given:
    """The answers of all seeds as one: the most frequent, and the others in words."""
    counts = Counter(item.given for item in items if item.given)
    first = items[0]
    most = max(counts, key=lambda text: (counts[text], -_place(items, text))) if counts else ""
    parts = []
    if len(counts) > 1:
        parts.append(", ".join(f"{text} ×{count}" for text, count in counts.most_common(4)))
    confidences = [item.confidence for item in items if item.confidence is not None and item.given == most]
    if confidences:
        parts.append(f"confidence {np.mean(confidences):.0%}".replace("%", " %"))
    notes = list(dict.fromkeys(item.note for item in items if item.note))
    if notes:
        parts.append(", ".join(notes[:4]))
    score = float(np.mean([item.score for item in items]))
    return Given(strategy, most, score, len(items), "; ".join(parts), first.given_pictures)


def _place(items: Sequence[Example], text: str) -> int:
    """Which of the seeds answered so first."""
    return next(place for place, item in enumerate(items) if item.given == text)
