"""What adapters of published sets share: finding files, reading fields with errors that name file, record and field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from data_prep.readers.json_stream import iterate_objects
from data_prep.readers.rows import path_inside
from mt2st.data.card import Answer, Example
from mt2st.errors import Mt2stError

T = TypeVar("T")


def find_file(source: Path, *names: str) -> Path:
    """The first of `names` (relative to `source`; a name may be a folder) that exists.

    Raises:
        Mt2stError: none exists; lists what was looked for.
    """
    for name in names:
        if (source / name).exists():
            return source / name
    raise Mt2stError(
        f"{source} holds no {' or '.join(names)}; --source must be the folder with the set's published files"
    )


def get_field(record: Any, name: str, kind: type[T] | tuple[type, ...], place: str) -> T:
    """`record[name]`, checked.

    Raises:
        Mt2stError: the record is no object, lacks the field, or the field is of another kind; names place and field.
    """
    if not isinstance(record, Mapping):
        raise Mt2stError(f"{place} is {str(record)[:60]!r}, not an object with fields")
    if name not in record:
        raise Mt2stError(f"{place} has no field {name!r}; it has {', '.join(map(str, list(record)[:12])) or 'none'}")
    value = record[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise Mt2stError(
            f"{place}, field {name!r} is {str(value)[:60]!r}; expected {' or '.join(one.__name__ for one in kinds)}"
        )
    return value  # type: ignore[return-value]


def optional_field(record: Mapping[str, Any], name: str, kind: type[T] | tuple[type, ...], place: str) -> T | None:
    """`record[name]`, checked; None where it is absent or null."""
    return None if record.get(name) is None else get_field(record, name, kind, place)


def get_strings(record: Any, name: str, place: str) -> tuple[str, ...]:
    """`record[name]`, a list of texts, checked."""
    values = get_field(record, name, list, place)
    if not all(isinstance(value, str) for value in values):
        raise Mt2stError(f"{place}, field {name!r} is {str(values)[:60]!r}; expected a list of texts")
    return tuple(values)


def image_in(folder: Path, name: str, place: str) -> Path:
    """The image `name` inside `folder`; it may not leave the folder."""
    return path_inside(folder, name, place)


def subfolder(folder: Path, name: str, place: str) -> Path:
    """`folder / name`, by name alone: users link image folders (`ln -s /data/coco/train2014`), so the folder itself may
    be a " "link.
    """
    if name.startswith("/") or ".." in Path(name).parts or "\0" in name:
        raise Mt2stError(f"{place}: path {name!r} leaves the folder {folder}")
    return folder / name


def annotators(answers: list[Any], place: str) -> tuple[Answer, ...]:
    """Answers given as objects with "answer" and, where the set has one, "answer_id"; else their position is the id."""
    return tuple(
        Answer(str(get_field(answer, "answer", (str, int, float), place)), str(answer.get("answer_id", position)))
        for position, answer in enumerate(answers)
    )


def check_count(name: str, split: str, found: int, expected: int, allow: bool) -> None:
    """Refuse another number of images than papers report on, unless the user said so.

    Raises:
        Mt2stError: the counts differ and `allow` is false.
    """
    if found != expected and not allow:
        raise Mt2stError(
            f"{name}/{split} has {found:,} images instead of the {expected:,} that papers report on, so results would "
            "not compare; "
            "get the whole file, or say --option other_counts=yes"
        )


# -- VQA's own format (VQAv2, OK-VQA) ----------------------------------------------------------------------------------


def vqa_examples(questions: Path, annotations: Path | None, image_folder: Path, image_prefix: str) -> Iterator[Example]:
    """The questions of a file in VQA's published format, with their annotations.

    Both files are read side by side: annotations lie in the order of the questions; those that do not are kept until
    asked for.

    Args:
        questions: `{"questions": [{"image_id", "question", "question_id"}]}`.
        annotations: `{"annotations": [{"question_id", "answers": [{"answer", "answer_id"}], …}]}`; None: unlabelled.
        image_folder: where the images lie.
        image_prefix: such as "COCO_train2014_"; twelve digits and ".jpg" follow.

    Raises:
        Mt2stError: a broken record, or a question without annotation.
    """
    waiting: dict[int, tuple[str, dict[str, Any]]] = {}
    annotated = iterate_objects(annotations, "annotations") if annotations else iter(())
    for number, record in iterate_objects(questions, "questions"):
        place = f"{questions}, record {number}"
        question_id = get_field(record, "question_id", int, place)
        image_id = get_field(record, "image_id", int, place)
        while annotations and question_id not in waiting:
            at, annotation = next(annotated, ("", None))
            if annotation is None:
                raise Mt2stError(
                    f"{place}: question_id {question_id} has no annotation in {annotations}; the two files do not "
                    "belong together"
                )
            at = f"{annotations}, record {at}"
            waiting[get_field(annotation, "question_id", int, at)] = (at, annotation)
        at, annotation = waiting.pop(question_id, ("", {}))
        answer_type = optional_field(annotation, "answer_type", str, at)
        name = f"{image_prefix}{image_id:012d}.jpg"
        yield Example(
            image=image_in(image_folder, name, place),
            image_id=str(image_id),
            question=get_field(record, "question", str, place),
            question_id=str(question_id),
            answers=annotators(get_field(annotation, "answers", list, at), at) if annotations else (),
            question_type=optional_field(annotation, "question_type", str, at) or "",
            extra={"answer_type": answer_type} if answer_type else {},
        )
