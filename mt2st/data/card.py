"""What a dataset says of itself (`DatasetCard`) and what it yields (`Example`). No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mt2st.errors import Mt2stError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

TASKS = ("vqa", "retrieval", "classification", "text-classification", "word-similarity")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True)
class Answer:
    """One annotator's answer. `annotator` is the annotator's id inside the question ("" where the set has none)."""

    text: str
    annotator: str = ""


class ExampleError(Mt2stError):
    """What an `Example` refuses. It cannot know where the example came from; who made the example can."""


@dataclass(frozen=True)
class Example:
    """One image and whichever texts belong to it; text-only and image-only examples are ordinary examples.

    A question is one example; several questions on one image share its `image_id`, and the image is stored once.

    Attributes:
        image: a path, the encoded bytes, or a PIL image; None for text-only examples.
        image_id: the set's own id of the image; examples with the same id show the same image.
        captions: captions of the image (for text-only examples: the texts).
        question: the question on the image, None where there is none.
        question_id: the set's own id of the question, unique within a split.
        answers: the annotators' answers; empty for an unlabelled question (a test split, say).
        choices: the options of a multiple-choice question.
        label: a class name, for classification.
        question_type: the set's own type of the question ("shape", "colour", "yes/no"), "" where it has none.
        extra: further plain values (str, int, float, bool) kept with the example.

    Raises:
        ExampleError: it holds nothing, a picture or question lacks its id, or a string stands where a tuple belongs.
    """

    image: Path | bytes | Image | None = None
    image_id: str = ""
    captions: tuple[str, ...] = ()
    question: str | None = None
    question_id: str = ""
    answers: tuple[Answer, ...] = ()
    choices: tuple[str, ...] = ()
    label: str | None = None
    question_type: str = ""
    extra: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image is None and not self.captions and self.question is None:
            raise ExampleError("Example has neither image nor caption nor question; give it at least one")
        if self.image is not None and not self.image_id:
            raise ExampleError("Example.image_id is empty; give the set's own id of the image, such as its file name")
        if self.question is not None and not self.question_id:
            raise ExampleError(
                f"Example.question_id is empty for question {self.question!r}; give an id unique within the split"
            )
        for name in ("captions", "answers", "choices"):
            if isinstance(getattr(self, name), str):
                raise ExampleError(
                    f"Example.{name} is a string, {getattr(self, name)!r}; give a tuple, such as "
                    f"({getattr(self, name)!r},)"
                )


@dataclass(frozen=True)
class DatasetCard:
    """What a dataset says of itself. Kept in the manifest of prepared data and in every run's record.

    Attributes:
        name: lower-case identifier, such as "easy_vqa".
        title: the set's own name, such as "easy-VQA".
        task: one of `TASKS`.
        source: where the set is published (a page or a package).
        revision: the pinned version of the set: a release, date or commit.
        licence: SPDX identifier or the licence's name; attribution belongs in `notes`.
        splits: split name → declared number of examples; None where the publisher states none.
        main_metric: the metric papers report, such as "vqa_accuracy" or "hit_rate@1".
        protocol: the variant of the metric, such as "official-2021"; "" where there is just one.
        paper: citation, or "".
        requires: what must be at hand to prepare it ("package easy-vqa", "folder with …").
        notes: what a user must know: derived texts, attribution, what could not be checked against the full set.
    """

    name: str
    title: str
    task: str
    source: str
    revision: str
    licence: str
    splits: Mapping[str, int | None]
    main_metric: str
    protocol: str = ""
    paper: str = ""
    requires: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Mt2stError(
                f"DatasetCard.name = {self.name!r} must be lower-case letters, digits, '_', '-' or '.'; for example "
                "'my_pets'"
            )
        if self.task not in TASKS:
            raise unknown_name("DatasetCard.task", self.task, TASKS)
        for name in ("title", "source", "revision", "licence", "main_metric"):
            if not getattr(self, name).strip():
                raise Mt2stError(
                    f"DatasetCard.{name} of {self.name!r} is empty; a record must say it ('unknown' is an answer)"
                )
        if not self.splits:
            raise Mt2stError(
                f"DatasetCard.splits of {self.name!r} is empty; name at least one split, such as {{'train': None}}"
            )
        for split, count in self.splits.items():
            if not _NAME.fullmatch(split):
                raise Mt2stError(
                    f"DatasetCard.splits of {self.name!r}: split name {split!r} must be lower-case letters, digits, "
                    "'_', '-' or '.'"
                )
            if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
                raise Mt2stError(
                    f"DatasetCard.splits[{split!r}] of {self.name!r} = {count!r} must be a count ≥ 0, or None if "
                    "unknown"
                )


@runtime_checkable
class Adapter(Protocol):
    """A dataset adapter: a module (one file) with these two names. Inherits nothing, registers nowhere.

    An adapter whose data lie in a folder takes it as keyword: `examples(split, *, source: Path)`.
    """

    @property
    def CARD(self) -> DatasetCard:  # noqa: N802 - a module constant seen as an attribute
        """The dataset's card."""

    def examples(self, split: str) -> Iterator[Example]:
        """The examples of `split`, in the set's own order, always the same."""
