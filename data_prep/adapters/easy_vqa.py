"""easy-VQA: one coloured shape an image, nine or ten questions each. The files come inside the package `easy-vqa`.

The set has no captions. One is derived for each image from the questions on it *and their answers*, never from the
pixels:
  - an answer to "what color …" or "what shape …" names colour or shape; so does what such a question presupposes
    ("what color is the triangle?");
  - "is there a red shape?" – yes names it, and so does "is there no red shape?" – no;
  - where all colours (or shapes) but one are denied, the remaining one is the one.
Known colour and shape give "a blue triangle"; colour alone "a blue shape"; shape alone "a triangle"; nothing known, no
caption. So captions restate facts of the questions: with a fraction of the questions withheld, captions still tell what
these asked.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from mt2st.data.card import Answer, DatasetCard, Example
from mt2st.errors import Mt2stError

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")

CARD = DatasetCard(
    name="easy_vqa",
    title="easy-VQA",
    task="vqa",
    source="package easy-vqa; github.com/vzhou842/easy-VQA",
    revision="1.0",
    licence="MIT",
    splits={"train": 38575, "test": 9673},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    requires="package easy-vqa (extra `data`), or --source with a folder that holds train/ and test/",
    notes="4,000 training and 1,000 test images of 64×64, 13 answers, one answer a question. "
    "Captions are derived from the questions' own answers (see data_prep/adapters/easy_vqa.py), "
    "so they restate facts that withheld questions ask for. Checked here against the full set.",
)

_WORD = re.compile(r"[a-z]+")
_NEGATIONS = frozenset({"not", "no"})


def default_source() -> Path:
    """The data folder inside the installed package."""
    spec = find_spec("easy_vqa")
    if spec is None or not spec.origin:
        raise Mt2stError("dataset 'easy_vqa' needs the package easy-vqa; install the extra: pip install -e '.[data]'")
    return Path(spec.origin).parent / "data"


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """All questions of `split` in file order; the first on an image carries the derived caption."""
    path = source / split / "questions.json"
    rows = _read(path)
    by_image: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, image in rows:
        by_image[image].append((question, answer))
    described: set[int] = set()
    for number, (question, answer, image) in enumerate(rows):
        caption = derive_caption(by_image[image]) if image not in described else None
        described.add(image)
        yield Example(
            image=source / split / "images" / f"{image}.png",
            image_id=str(image),
            captions=(caption,) if caption else (),
            question=question,
            question_id=str(number),
            answers=(Answer(answer),),
            question_type=question_type(question, answer),
        )


def question_type(question: str, answer: str) -> str:
    """ "yes/no", "colour" or "shape": what kind of answer the question wants."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "colour" if "color" in question else "shape"


def derive_caption(questions: Sequence[tuple[str, str]]) -> str | None:
    """The caption that (question, answer) pairs on one image determine; None where they determine nothing.

    >>> derive_caption([("what color is the shape?", "blue"), ("is there not a triangle?", "no")])
    'a blue triangle'
    """
    colour, shape = _fact(questions, COLOURS), _fact(questions, SHAPES)
    return f"a {colour} {shape or 'shape'}" if colour else f"a {shape}" if shape else None


def _fact(questions: Sequence[tuple[str, str]], values: tuple[str, ...]) -> str | None:
    denied: set[str] = set()
    for question, answer in questions:
        if answer in values:
            return answer
        words = _WORD.findall(question)
        named = [word for word in words if word in values]
        if not named:
            continue
        if answer not in ("yes", "no"):  # "what color is the triangle?" presupposes the triangle
            return named[0]
        if (answer == "yes") != bool(_NEGATIONS.intersection(words)):
            return named[0]
        denied.add(named[0])
    left = [value for value in values if value not in denied]
    return left[0] if len(left) == 1 else None


def _read(path: Path) -> list[tuple[str, str, int]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Mt2stError(f"{path} is missing; --source must be the folder that holds train/ and test/") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Mt2stError(f"{path} is not valid JSON ({error}); install the package again") from None
    if not isinstance(rows, list):
        raise Mt2stError(f"{path} holds a {type(rows).__name__} instead of a list of [question, answer, image]")
    for number, row in enumerate(rows):
        shape = [type(value) for value in row] if isinstance(row, list) else None
        if shape != [str, str, int]:
            raise Mt2stError(f"{path}, record {number}: {str(row)[:80]!r} is not [question, answer, image number]")
    return [(question, answer, image) for question, answer, image in rows]
