"""From a row of any table to an `Example`, by a mapping from our fields to its columns.

    --map image=img,question=q,answers=a            fields on the left, the set's columns on the right

A column may hold what such columns usually hold: an image as path, bytes or {"bytes", "path"}; captions as one text or
a list; answers as one text, a list of texts, a list of {"answer", "answer_id"}, or {"answer": [...]}; a label as text
or number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mt2st.data.card import Answer, Example, ExampleError
from mt2st.errors import Mt2stError, unknown_name

FIELDS = ("image", "image_id", "captions", "question", "question_id", "answers", "choices", "label", "question_type")
_ALIASES = {"caption": "captions", "answer": "answers", "text": "captions", "id": "question_id"}


def parse_mapping(text: str) -> dict[str, str]:
    """`image=img,question=q` → {"image": "img", "question": "q"}.

    Raises:
        Mt2stError: a part without "=", an unknown field, or a field given twice.
    """
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        field, equals, column = part.partition("=")
        if not equals or not column.strip():
            raise Mt2stError(f"--map part {part!r} is not FIELD=COLUMN; for example image=img,question=q,answers=a")
        pairs.append((field.strip(), column.strip()))
    if len(dict(pairs)) != len(pairs):
        raise Mt2stError(f"--map {text!r} names a field twice")
    return checked_mapping(dict(pairs))


def checked_mapping(mapping: Mapping[str, str]) -> dict[str, str]:
    """The mapping with singular field names ("caption", "answer") made ours.

    Unknown fields are answered with the known ones.
    """
    found: dict[str, str] = {}
    for field, column in mapping.items():
        name = _ALIASES.get(field, field)
        if name not in FIELDS:
            raise unknown_name("field in the mapping", field, FIELDS)
        if not isinstance(column, str):
            raise Mt2stError(f"mapping of field {field!r} is {column!r}; give the name of a column")
        if name in found:
            raise Mt2stError(f"the mapping names field {name!r} twice")
        found[name] = column
    return found


def guess_mapping(columns: Sequence[str]) -> dict[str, str]:
    """The mapping of columns that carry our own field names (or their singular)."""
    found: dict[str, str] = {}
    for column in columns:
        field = _ALIASES.get(column, column)
        if field in FIELDS and field not in found:
            found[field] = column
    return found


def example_from_row(
    row: Mapping[str, Any],
    mapping: Mapping[str, str],
    place: str,
    number: int,
    folder: Path | None = None,
    names: Sequence[str] = (),
) -> Example:
    """Make an `Example` of a row.

    Args:
        row: column → value.
        mapping: field → column, checked.
        place: what errors call the row, such as "pets.jsonl, record 3".
        number: position of the row; the question's id where no column gives one.
        folder: where image paths are looked up; they may not leave it. None refuses paths.
        names: class names, for labels given as numbers.

    Raises:
        Mt2stError: names the place, the column and what was found.
    """
    for field, column in mapping.items():
        if column not in row:
            raise unknown_name(f"column (for {field}) in {place}", column, [str(name) for name in row])
    value = {field: row[column] for field, column in mapping.items()}
    image, image_id = _image(value.get("image"), f"{place}, column {mapping.get('image')!r}", folder)
    question = value.get("question")
    if question is not None and not isinstance(question, str):
        raise Mt2stError(
            f"{place}, column {mapping['question']!r}: a question must be a text, got {type(question).__name__}"
        )
    try:
        return Example(
            image=image,
            image_id=_text(value.get("image_id")) or image_id,
            captions=_texts(value.get("captions"), f"{place}, column {mapping.get('captions')!r}"),
            question=question,
            question_id=(_text(value.get("question_id")) or str(number)) if question is not None else "",
            answers=_answers(value.get("answers"), f"{place}, column {mapping.get('answers')!r}"),
            choices=_texts(value.get("choices"), f"{place}, column {mapping.get('choices')!r}"),
            label=_label(value.get("label"), names, f"{place}, column {mapping.get('label')!r}"),
            question_type=_text(value.get("question_type")),
        )
    except ExampleError as error:
        raise Mt2stError(f"{place}: {error}") from None


def path_inside(folder: Path, relative: str, place: str) -> Path:
    """`folder / relative`, refused when it leaves the folder (absolute, "..", or through a link).

    Raises:
        Mt2stError: names the place and the path.
    """
    if "\0" in relative or not relative:
        raise Mt2stError(f"{place}: {relative!r} is no file name")
    path = folder / relative
    root = folder.resolve()
    if not path.resolve().is_relative_to(root):
        raise Mt2stError(f"{place}: path {relative!r} leaves the folder {folder}; put the file inside it")
    return path


def _image(value: Any, place: str, folder: Path | None) -> tuple[Any, str]:
    """The image and an id for it: its path inside the folder, else a hash of its bytes."""
    if value is None:
        return None, ""
    if isinstance(value, str):
        if folder is None:
            raise Mt2stError(
                f"{place}: an image path ({value!r}) needs a local folder; give bytes, or prepare from local files"
            )
        return path_inside(folder, value, place), value
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return _image(value["bytes"], place, folder)
        if value.get("path") is not None:
            return _image(value["path"], place, folder)
    if isinstance(value, bytes):
        return value, hashlib.sha256(value).hexdigest()[:32]
    if hasattr(value, "tobytes") and hasattr(value, "mode"):  # a PIL image
        return value, hashlib.sha256(repr((value.mode, value.size)).encode() + value.tobytes()).hexdigest()[:32]
    raise Mt2stError(
        f"{place}: {type(value).__name__} is no image; expected a path, bytes, or an object with bytes or path"
    )


def _texts(value: Any, place: str) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise Mt2stError(f"{place}: expected a text or a list of texts, got {str(value)[:80]!r}")
    return tuple(values)


def _answers(value: Any, place: str) -> tuple[Answer, ...]:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        value = next((value[name] for name in ("answer", "answers", "text") if name in value), None)
    values = value if isinstance(value, list | tuple) else [value]
    found = []
    for number, one in enumerate(values):
        text, annotator = one, str(number)
        if isinstance(one, Mapping):
            text = next((one[name] for name in ("answer", "text") if name in one), None)
            annotator = str(next((one[name] for name in ("answer_id", "annotator", "id") if name in one), number))
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise Mt2stError(
                f"{place}: answer {number} is {str(one)[:80]!r}; expected a text, or an object with 'answer'"
            )
        found.append(Answer(str(text), annotator))
    return tuple(found)


def _label(value: Any, names: Sequence[str], place: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise Mt2stError(f"{place}: label {str(value)[:80]!r} must be a text or a class number")
    if not names:
        return str(value)
    if not 0 <= value < len(names):
        raise Mt2stError(f"{place}: label {value} is outside the {len(names)} declared classes")
    return names[value]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def unmapped(place: str, columns: list[str]) -> Mt2stError:
    """The error for a table whose columns nobody has named."""
    return Mt2stError(
        f"{place} has columns {', '.join(map(str, columns))}; say which is which with --map, such as "
        "image=img,caption=text"
    )


def yes(option: str | bool) -> bool:
    """A yes/no option of the command line.

    Raises:
        Mt2stError: neither yes nor no.
    """
    text = str(option).lower()
    if text not in ("yes", "no", "true", "false"):
        raise Mt2stError(f"option value {option!r} must be yes or no")
    return text in ("yes", "true")
