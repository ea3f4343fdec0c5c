"""What the demo does, without its page: ask, search, compare, why. Every picture comes as a data: address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from benchmarks.demo.gallery import Hit, Searched, searched
from benchmarks.demo.options import Options
from benchmarks.demo.runs import ShownRun, open_runs
from benchmarks.demo.uploads import data_address, decoded
from benchmarks.records.examples import Example
from mt2st.errors import Mt2stError
from mt2st.trained.occlusion import LookedAt, looked_at, looked_at_for_text
from mt2st.trained.vision_language import PossibleAnswer

TOP = 5  # answers
FOUND = 12  # pictures
_LONGEST_TEXT = 1000  # characters of a question or query


@dataclass(frozen=True)
class Asked:
    """A run's answers to a question.

    Attributes:
        run: the run's name.
        answers: best first.
        example: the item of the test split that was asked, with what the run answered there; None = another question.
    """

    run: str
    answers: list[PossibleAnswer]
    example: Example | None


@dataclass(frozen=True)
class Found:
    """The pictures that a run found."""

    run: str
    hits: list[Hit]
    searched: int


@dataclass(frozen=True)
class Why:
    """Where an answer looked.

    Attributes:
        seen: the patches.
        picture: what the model saw, S × S pixels.
        is_answer: whether the score is a probability; else it is a cosine.
    """

    seen: LookedAt
    picture: Image.Image
    is_answer: bool


class Demo:
    """The functions of the demo.

    Attributes:
        runs: one or two.
        options: as given.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.runs = open_runs(options.runs, options.device)
        self._searched = [searched(run, options.gallery, self.runs[0]) for run in self.runs]

    @property
    def examples(self) -> Sequence[Example]:
        """Questions of the first run's test split whose picture is known; () for a run of retrieval."""
        kept = self.runs[0].examples
        if kept is None or not self.runs[0].answers_questions:
            return ()
        return [item for item in kept.items if item.pictures and item.pictures[0] in kept.pictures]

    def example_picture(self, number: int) -> str:
        """The picture of one of `examples`."""
        if not 0 <= number < len(self.examples):
            raise Mt2stError(f"example {number} is none of {len(self.examples)}")
        kept: Any = self.runs[0].examples
        return data_address(kept.pictures[self.examples[number].pictures[0]])

    def picture(self, address: str) -> Image.Image:
        """The picture that was chosen, RGB.

        Raises:
            Mt2stError: none, too large, or it cannot be decoded.
        """
        return decoded(address, most_bytes=self.options.most_bytes, most_pixels=self.options.most_pixels)

    def ask(self, address: str, question: str, number: int = 0) -> Asked:
        """Ask run `number`.

        Raises:
            Mt2stError: no picture or question, or the run does not answer.
        """
        run, picture, question = self.runs[number], self.picture(address), _text(question, "question")
        answers = run.model.answer(picture, question, top=TOP)
        return Asked(run.name, answers, self._example_of(run, address, question))

    def ask_all(self, address: str, question: str) -> list[Asked]:
        """Ask every run the same."""
        self._two()
        return [self.ask(address, question, number) for number in range(len(self.runs))]

    def search_text(self, text: str, number: int = 0) -> Found:
        """The pictures nearest to a text."""
        text = _text(text, "text")
        return self._found(number, self.runs[number].model.embed_texts([text])[0])

    def search_picture(self, address: str, number: int = 0) -> Found:
        """The pictures nearest to a picture."""
        return self._found(number, self.runs[number].model.embed_images([self.picture(address)])[0])

    def search_text_all(self, text: str) -> list[Found]:
        """The same text in every run."""
        self._two()
        return [self.search_text(text, number) for number in range(len(self.runs))]

    def why(self, address: str, question: str, answer: str = "") -> Why:
        """Which patches the first run's answer looked at; for a run of retrieval, where the likeness comes from.

        Args:
            address: the picture.
            question: the question, or the text to compare with.
            answer: "" = the most probable one.
        """
        run, picture, text = self.runs[0], self.picture(address), _text(question, "question")
        if run.answers_questions:
            seen = looked_at(run.model, picture, text, answer)
        else:
            seen = looked_at_for_text(run.model, picture, text)
        square = run.model.pixels([picture])[0].permute(1, 2, 0).numpy()
        return Why(seen, Image.fromarray(square), run.answers_questions)

    def _found(self, number: int, embedding: Any) -> Found:
        where: Searched | None = self._searched[number]
        if where is None:
            raise Mt2stError(
                f"{self.runs[0].folder} kept no examples to search in; start the demo with --gallery FOLDER"
            )
        return Found(self.runs[number].name, where.nearest(embedding, FOUND), len(where))

    def _example_of(self, run: ShownRun, address: str, question: str) -> Example | None:
        """The example that was asked, with what `run` answered to it; every run of a suite keeps the same items."""
        for place, example in enumerate(self.examples):
            if example.question == question and self.example_picture(place) == address:
                kept = run.examples.items if run.examples is not None else ()
                return next((item for item in kept if _same(item, example)), None)
        return None

    def _two(self) -> None:
        if len(self.runs) < 2:
            raise Mt2stError("there is one run; start the demo with two, demo RUN RUN2, to compare")


def _same(one: Example, other: Example) -> bool:
    return (one.item, one.question, one.right) == (other.item, other.question, other.right)


def _text(text: str, what: str) -> str:
    text = " ".join(text.split())
    if not text:
        raise Mt2stError(f"write a {what} first")
    if len(text) > _LONGEST_TEXT:
        raise Mt2stError(f"the {what} has {len(text):,} characters; write at most {_LONGEST_TEXT:,}")
    return text
