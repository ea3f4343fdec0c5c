"""Examples: a few test items as people see them, and what a run answered. `examples.json` beside the run's record.

    pictures   key → PNG, small; of the items, and of what was found for them
    items      what was asked, what is right, what was given, how good that is

A run writes its file after the test, from the same predictions that its metrics come from. Which items are kept
depends on the test split alone, so every run of a suite keeps the same ones. Reports show them; no number comes from
them. A pack leaves them out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json, write_sealed_json

EXAMPLES_FILE = "examples.json"
EXAMPLES_VERSION = 1
MOST_EXAMPLES = 60
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PICTURE_BYTES = 64_000
_LARGEST_FILE_BYTES = 16_000_000
_CURE = "delete the file, or repeat the run"


@dataclass(frozen=True)
class Example:
    """One test item and a run's answer.

    Attributes:
        item: its place in the test split's order.
        question: the question or query.
        right: the right answers as texts, best known first.
        given: the run's answer as text; "" where it gave pictures.
        score: how good it is, from 0 = wrong to 1 = right.
        confidence: what the model thinks of its answer, 0 to 1; None = it does not say.
        kind: the item's kind, such as its question type.
        note: more on the answer, such as "rank 17".
        pictures: keys of the pictures that belong to the question.
        right_pictures: keys of the pictures that are right.
        given_pictures: keys of the pictures that were given, best first.
    """

    item: int
    question: str
    right: tuple[str, ...] = ()
    given: str = ""
    score: float = 0.0
    confidence: float | None = None
    kind: str = ""
    note: str = ""
    pictures: tuple[str, ...] = ()
    right_pictures: tuple[str, ...] = ()
    given_pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """The examples of a run.

    Attributes:
        items: at most 60.
        pictures: key → PNG bytes.
        kinds: what the kinds of the items are kinds of, such as "question type".
    """

    items: tuple[Example, ...]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    kinds: str = "kind"


def write_examples(folder: Path, examples: Examples) -> None:
    """Write a run's examples, atomically.

    Raises:
        Mt2stError: there are too many, or a picture is none or too large.
    """
    if len(examples.items) > MOST_EXAMPLES:
        raise Mt2stError(f"{len(examples.items)} examples are more than {MOST_EXAMPLES}; keep fewer test items")
    for key, content in examples.pictures.items():
        _check_picture(folder / EXAMPLES_FILE, key, content)
    value = {
        "examples_version": EXAMPLES_VERSION,
        "kinds": examples.kinds,
        "items": [asdict(item) for item in examples.items],
        "pictures": {key: base64.b64encode(content).decode() for key, content in examples.pictures.items()},
    }
    write_sealed_json(folder / EXAMPLES_FILE, value)


def read_examples(folder: Path) -> Examples | None:
    """The examples of a run; None where it kept none.

    Raises:
        Mt2stError: the file is torn, foreign or of another version; one line with the cure.
    """
    path = folder / EXAMPLES_FILE
    if not path.exists():
        return None
    if path.stat().st_size > _LARGEST_FILE_BYTES:
        raise Mt2stError(f"{path} is larger than {_LARGEST_FILE_BYTES} bytes, which no run writes; {_CURE}")
    value = read_sealed_json(path, _CURE)
    if value.get("examples_version") != EXAMPLES_VERSION:
        found = repr(value.get("examples_version"))[:60]
        raise Mt2stError(f"{path} has version {found}, this code reads {EXAMPLES_VERSION}; {_CURE}")
    try:
        pictures = {str(key): base64.b64decode(text, validate=True) for key, text in value["pictures"].items()}
        items = tuple(_example(item) for item in value["items"][:MOST_EXAMPLES])
        for key, content in pictures.items():
            _check_picture(path, key, content)
        return Examples(items, pictures, str(value["kinds"]))
    except (AttributeError, LookupError, TypeError, ValueError, binascii.Error) as error:
        raise Mt2stError(f"{path} holds no examples ({type(error).__name__}: {error}); {_CURE}") from error


def _example(value: Mapping[str, Any]) -> Example:
    """An example from plain values, each of its kind."""
    score, confidence = float(value["score"]), value["confidence"]
    if not 0 <= score <= 1:
        raise ValueError(f"score = {score}")
    texts: dict[str, Any] = {name: str(value[name]) for name in ("question", "given", "kind", "note")}
    for name in ("right", "pictures", "right_pictures", "given_pictures"):
        texts[name] = tuple(map(str, value[name]))
    sure = None if confidence is None else float(confidence)
    return Example(item=int(value["item"]), score=score, confidence=sure, **texts)


def _check_picture(path: Path, key: str, content: bytes) -> None:
    if not content.startswith(_PNG) or len(content) > _LARGEST_PICTURE_BYTES:
        raise Mt2stError(f"{path}: picture {key[:60]!r} is no PNG of at most {_LARGEST_PICTURE_BYTES} bytes; {_CURE}")
