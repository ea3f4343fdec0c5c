"""Examples and dataset cards: what is refused names field, value and cure; what is allowed stays as it was given."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt2st.data.card import TASKS, Adapter, Answer, DatasetCard, Example
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="my_pets",
    title="My Pets",
    task="vqa",
    source="a folder of mine",
    revision="2026-01-01",
    licence="CC0-1.0",
    splits={"train": 10, "test": None},
    main_metric="vqa_accuracy",
)


@pytest.mark.parametrize(
    "example",
    [
        Example(image=b"png", image_id="1"),
        Example(image=Path("a.png"), image_id="1", captions=("a cat", "a pet")),
        Example(captions=("a gloss",)),
        Example(question="what?", question_id="q1"),
        Example(
            image=b"png", image_id="1", question="what?", question_id="q1", answers=(Answer("cat", "7"), Answer("cat"))
        ),
        Example(image=b"png", image_id="1", label="cat", extra={"breed": "tabby", "age": 3}),
        Example(question="which?", question_id="q", choices=("a", "b"), question_type="choice"),
    ],
)
def test_text_only_image_only_and_full_examples_are_ordinary(example: Example) -> None:
    assert replace(example) == example
    with pytest.raises(FrozenInstanceError):
        example.image_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither image nor caption nor question"),
        ({"label": "cat"}, "neither image nor caption nor question"),
        ({"image": b"png"}, "Example.image_id is empty; give the set's own id"),
        ({"question": "what?"}, "Example.question_id is empty for question 'what\\?'"),
        ({"captions": "a cat"}, r"Example.captions is a string, 'a cat'; give a tuple, such as \('a cat',\)"),
        ({"question": "what?", "question_id": "q", "answers": "cat"}, "Example.answers is a string"),
        ({"question": "what?", "question_id": "q", "choices": "ab"}, "Example.choices is a string"),
    ],
)
def test_an_example_that_makes_no_sense_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        Example(**fields)


def test_an_empty_question_is_still_a_question() -> None:
    """Whether an empty text is useful is the check's matter; losing it silently would not be."""
    assert Example(question="", question_id="q").question == ""


@pytest.mark.parametrize("task", TASKS)
def test_cards_of_every_task(task: str) -> None:
    assert replace(CARD, task=task).task == task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "DatasetCard.name = '' must be"),
        ({"name": "My Pets"}, "DatasetCard.name = 'My Pets' must be lower-case"),
        ({"name": "../up"}, "DatasetCard.name = '../up'"),
        ({"name": "pets\n"}, "DatasetCard.name"),
        ({"task": "vqaa"}, "unknown DatasetCard.task 'vqaa'; did you mean 'vqa'"),
        ({"title": " "}, "DatasetCard.title of 'my_pets' is empty"),
        ({"source": ""}, "DatasetCard.source"),
        (
            {"revision": ""},
            r"DatasetCard.revision of 'my_pets' is empty; a record must say it \('unknown' is an answer\)",
        ),
        ({"licence": ""}, "DatasetCard.licence"),
        ({"main_metric": ""}, "DatasetCard.main_metric"),
        ({"splits": {}}, "name at least one split"),
        ({"splits": {"Train": 1}}, "split name 'Train'"),
        ({"splits": {"a/b": 1}}, "split name 'a/b'"),
        ({"splits": {"train": -1}}, r"DatasetCard.splits\['train'\] of 'my_pets' = -1"),
        ({"splits": {"train": 1.5}}, "must be a count ≥ 0, or None if unknown"),
        ({"splits": {"train": "10"}}, "= '10' must be a count"),
        ({"splits": {"train": True}}, "= True must be a count"),
    ],
)
def test_a_card_names_field_value_and_cure(change: dict, message: str) -> None:
    with pytest.raises(Mt2stError, match=message) as caught:
        replace(CARD, **change)
    assert str(caught.value).count("\n") == 0


@given(st.text(max_size=12))
def test_a_name_that_is_accepted_is_a_plain_folder_name(name: str) -> None:
    try:
        card = replace(CARD, name=name)
    except Mt2stError:
        return
    assert card.name == card.name.strip().lower()
    assert Path(card.name).name == card.name
    assert not card.name.startswith(".")


def test_an_adapter_inherits_nothing() -> None:
    class Pets:
        CARD = CARD

        @staticmethod
        def examples(split: str):
            yield Example(captions=(split,))

    assert isinstance(Pets(), Adapter)
    assert not isinstance(object(), Adapter)


def test_importing_records_imports_no_torch_and_no_pillow() -> None:
    code = "import sys, mt2st.data.card; print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
