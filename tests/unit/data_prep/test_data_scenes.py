"""Scenes of pictograms: exact answers, balance, captions that tell nothing of them, unseen combinations, pixels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep.adapters import _scenes as scenes
from data_prep.adapters import scene_captions, scene_questions
from data_prep.adapters._scenes import COLOURS, DIRECTIONS, HUES, KINDS, Thing
from data_prep.prepare import prepare
from mt2st.data.card import Example
from mt2st.data.splits import PreparedDataset
from mt2st.errors import Mt2stError
from tests.helpers.published_layouts import pictograms

SIZE = 200


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictograms, which need neither package nor time."""
    folder = tmp_path_factory.mktemp("pictograms")
    pictograms(folder)
    return folder


@pytest.fixture(scope="module")
def questions(source: Path) -> dict[str, list[Example]]:
    return {split: list(scene_questions.examples(split, source=source, size=SIZE)) for split in ("train", "test")}


def things_of(split: str, number: int) -> tuple[tuple[Thing, ...], tuple[Thing, ...]]:
    random = scenes.random_of("scene_questions", split, number)
    return scene_questions.scene(random, unseen=split == "test" and number % 2 == 1)


def answered(question: str, others: Sequence[Thing]) -> str:
    """The answer by a reading of the question's words: a slow, obvious twin of the programs."""
    words = question.rstrip("?").replace("butterflies", "butterfly").split()
    singular = [word[:-1] if word[:-1] in KINDS else word for word in words]
    colours, kinds = [word for word in words if word in HUES], [word for word in singular if word in KINDS]

    def count(name: str) -> int:
        return sum(name in (thing.kind, thing.colour) for thing in others)

    def thing(colour: str, kind: str) -> Thing:
        return next(found for found in others if (found.colour, found.kind) == (colour, kind))

    if question.startswith("is there"):
        return "yes" if any((found.colour, found.kind) == (colours[0], kinds[0]) for found in others) else "no"
    if question.startswith("how many"):
        return str(count((colours + kinds)[0]))
    if question.startswith("are there more"):
        one, other = colours or kinds
        return "yes" if count(one) > count(other) else "no"
    if question.startswith("what color"):
        return next(found.colour for found in others if found.kind == kinds[0])
    if question.startswith("what is the"):
        return next(found.kind for found in others if found.colour == colours[0])
    one, other = thing(colours[0], kinds[0]), thing(colours[1], kinds[1])
    right = {
        "left": one.column < other.column, "right": one.column > other.column,
        "above": one.row < other.row, "below": one.row > other.row,
    }  # fmt: skip
    return "yes" if next(right[word] for word in words if word in right) else "no"


def test_every_answer_is_exact_and_no_caption_tells_of_what_is_asked(questions: dict[str, list[Example]]) -> None:
    families = set()
    for split, examples in questions.items():
        told: dict[str, set[str]] = {}
        for example in examples:
            assert example.question
            _, others = things_of(split, int(example.image_id))
            assert answered(example.question, others) == example.answers[0].text, example.question
            told.setdefault(example.image_id, set(" ".join(example.captions).split()) & {*KINDS, *HUES})
            asked = example.question.replace("butterflies", "butterfly")
            assert not [word for word in told[example.image_id] if re.search(rf"\b{word}s?\b", asked)], example
            assert example.answers[0].text not in told[example.image_id]
            families.add(example.question_type.split(",")[0])
    assert families == set(scene_questions.ASKED) == set(scene_questions.ANSWERS)


def test_a_caption_is_true(questions: dict[str, list[Example]]) -> None:
    for split, examples in questions.items():
        for example in examples:
            if example.captions:
                told, _ = things_of(split, int(example.image_id))
                match = re.fullmatch(rf"an? (.+) ({'|'.join(DIRECTIONS)}) an? (.+)", example.captions[0])
                assert match
                by_name = {thing.name: thing for thing in told}
                assert by_name[match[1]].stands(match[2], by_name[match[3]])


def test_answers_to_a_wording_are_balanced_in_every_family(questions: dict[str, list[Example]]) -> None:
    by_wording: dict[str, Counter[str]] = defaultdict(Counter)
    for example in questions["train"]:
        by_wording[str(example.question)][example.answers[0].text] += 1
    hits: dict[str, list[bool]] = defaultdict(list)
    for example in questions["test"]:
        counts = by_wording.get(str(example.question))
        if counts:  # the language prior; for a new wording it has nothing
            hits[example.question_type].append(counts.most_common(1)[0][0] == example.answers[0].text)
    for kind in ("exist", "count", "compare"):
        assert len(hits[kind]) > 60
        chance = 1 / scene_questions.ANSWERS[kind]
        assert np.mean(hits[kind]) < chance + 0.13  # two standard errors of 60 coins
    for family, wanted in scene_questions.ANSWERS.items():
        own = Counter(
            example.answers[0].text for example in questions["train"] if example.question_type.startswith(family)
        )
        assert len(own) == wanted
        assert own.most_common(1)[0][1] <= 1.8 * own.total() / wanted


def test_training_shows_and_names_no_unseen_combination_and_test_marks_them(
    questions: dict[str, list[Example]],
) -> None:
    unseen = {Thing(kind, hue).name for kind in KINDS for hue in HUES if Thing(kind, hue).unseen}
    assert len(unseen) == 16
    assert {name.split()[0] for name in unseen} == set(HUES)
    assert {name.split()[1] for name in unseen} == set(KINDS)

    def named(example: Example) -> bool:
        text = f"{example.question} {' '.join(example.captions)}"
        return any(re.search(rf"\b{name}\b", text) for name in unseen)

    assert not any(named(example) for example in questions["train"])
    for number in range(SIZE):
        assert not any(thing.unseen for part in things_of("train", number) for thing in part)
    marked = [example for example in questions["test"] if example.question_type.endswith("unseen")]
    assert 0.1 < len(marked) / len(questions["test"]) < 0.5
    assert all(example in marked for example in questions["test"] if named(example) and not example.captions)


def test_every_thing_is_drawn_in_its_cell_and_in_its_colour(questions: dict[str, list[Example]]) -> None:
    for example in questions["test"][:40]:
        things = [thing for part in things_of("test", int(example.image_id)) for thing in part]
        pixels = np.asarray(example.image)
        assert pixels.shape == (scenes.SIDE, scenes.SIDE, 3)
        for column in range(scenes.GRID):
            for row in range(scenes.GRID):
                cell = pixels[row * scenes.CELL :, column * scenes.CELL :][: scenes.CELL, : scenes.CELL]
                found = [thing for thing in things if (thing.column, thing.row) == (column, row)]
                if not found:
                    assert (cell == 255).all()
                    continue
                colour = COLOURS[found[0].colour]
                wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
                assert (np.abs(cell.astype(int) - wanted).max(-1) <= 2).sum() > 10


def test_a_smaller_set_is_the_beginning_of_a_larger_one(source: Path, questions: dict[str, list[Example]]) -> None:
    few = list(scene_questions.examples("train", source=source, size=5))
    for one, other in zip(few, questions["train"]):
        assert (one.question, one.answers, one.captions) == (other.question, other.answers, other.captions)
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    captioned = [list(scene_captions.examples("test", source=source, size=size)) for size in (4, 9)]
    assert [example.captions for example in captioned[0]] == [example.captions for example in captioned[1][:4]]


def meaning_of(query: str) -> frozenset[tuple[str, str]]:
    """What a query says from either side: each thing with where it is of the other."""
    match = re.fullmatch(rf"an? (\w+ \w+) ({'|'.join(scene_captions.RELATIONS)}) an? (\w+ \w+)", query)
    assert match, query
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above", "of": "of"}
    back = " ".join(opposite[word] for word in match[2].split())
    return frozenset({(match[1], match[2]), (match[3], back)})


def test_no_two_scenes_of_the_whole_set_have_one_meaning() -> None:
    names = {split: [int(meaning) for meaning in scene_captions.meanings(split)] for split in scene_captions.COUNTS}
    assert {split: len(found) for split, found in names.items()} == scene_captions.COUNTS
    queries = []
    for split, found in names.items():
        for number, meaning in enumerate(found):
            random = scenes.random_of("scene_captions", split, number)
            things, relation = scene_captions.scene(meaning, random)
            assert any(thing.unseen for thing in things) == (split == "test_compositional")
            queries.append(meaning_of(scene_captions.captions(things, relation, random)[0]))
            for word in relation.split():
                if word != "of":
                    direction = f"{word} of" if word in ("left", "right") else word
                    assert things[0].stands(direction, things[1])
    assert len(set(queries)) == len(queries) == sum(scene_captions.COUNTS.values())


def test_no_partial_caption_tells_the_whole_scene(source: Path) -> None:
    for example in scene_captions.examples("train", source=source, size=30):
        query, *partial = example.captions
        assert len(partial) == 3
        told = set(query.split()) & {*KINDS, *HUES, *["left", "right", "above", "below"]}
        for caption in partial:
            assert told - set(caption.split()), (query, caption)


@pytest.mark.parametrize("adapter", [scene_questions, scene_captions])
def test_a_missing_pictogram_and_a_bad_size_are_named(tmp_path: Path, source: Path, adapter: object) -> None:
    name = adapter.CARD.name  # type: ignore[attr-defined]
    with pytest.raises(Mt2stError, match=r"2B50\.svg, the pictogram of a star, is missing|is missing"):
        prepare(name, source=tmp_path, out=tmp_path / "out", options={"size": 20}, workers=0)
    with pytest.raises(Mt2stError, match="size = -3"):
        prepare(name, source=source, out=tmp_path / "out", options={"size": "-3"}, workers=0)
    with pytest.raises(Mt2stError, match="size = 'many' is no number"):
        prepare(name, source=source, out=tmp_path / "out", options={"size": "many"}, workers=0)


def test_the_real_pictograms_are_all_there_and_all_different(tmp_path: Path) -> None:
    data = PreparedDataset.open(prepare("scene_captions", out=tmp_path, image_size=32, options={"size": 8}, workers=0))
    assert data.split("train").num_images == 8
    parts = [scenes.part(scenes.default_source(), kind, hue).tobytes() for kind in KINDS for hue in HUES]
    assert len(set(parts)) == len(parts) == 96
