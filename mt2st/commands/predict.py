"""Answer questions about pictures with a trained VQA run.

--question asks the same of every picture. --questions takes a file: JSON lines such as
    {"question_id": 7, "image": "cat.png", "question": "what colour is it?"}
or the VQA challenge's questions file ({"questions": [{"question_id", "image_id", "question"}]}), whose pictures
--image-name names, such as COCO_test2015_{image_id:012d}.jpg. Answers are not needed.

Output: JSON lines, or with --format vqa the challenge's result format, [{"question_id", "answer"}].
"""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mt2st.commands._progress import Progress
from mt2st.data.images import PICTURE_ENDINGS, picture_files
from mt2st.errors import Mt2stError
from mt2st.files import atomic_path

_AT_ONCE = 1024  # questions read into memory and answered together, sorted by picture


@dataclass(frozen=True)
class Asked:
    """A question about a picture, and its id in the file it came from."""

    question_id: Any
    image: Path
    question: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run of vqa")
    parser.add_argument(
        "--images", required=True, metavar="PLACE", help="a folder, a file, or a pattern in quotes, such as 'a/*.png'"
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--question", metavar="TEXT", help="the question to ask of every picture")
    asked.add_argument("--questions", metavar="FILE", type=Path, help="a file of questions")
    parser.add_argument(
        "--image-name",
        default="{image_id}",
        metavar="PATTERN",
        help="a picture's file name from its image_id, where the file names no image (default {image_id})",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="where to write (default: the terminal)")
    parser.add_argument(
        "--format", choices=("jsonl", "vqa"), default="jsonl", help="form of the output (default jsonl)"
    )
    parser.add_argument("--top", type=int, default=1, metavar="N", help="answers to give, best first (default 1)")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="pictures at a time (default 256)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, …; auto = a GPU where there is one (default)")
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="at a picture that cannot be read: end, or name it and leave its questions out (default fail)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Answer all questions; returns 0, or 1 if questions were left out."""
    for name in ("top", "batch_size"):
        if getattr(arguments, name) < 1:
            raise Mt2stError(f"--{name.replace('_', '-')} {getattr(arguments, name)} must be ≥ 1")
    if arguments.format == "vqa" and arguments.question is not None:
        raise Mt2stError("--format vqa needs question_ids; give --questions FILE, or leave --format out")
    asked = list(questions(arguments))
    import mt2st

    model = mt2st.load(arguments.run, device=arguments.device)
    left_out = 0
    with _output(arguments.out) as stream, Progress(len(asked), "answers") as progress:
        writer = _Writer(stream, arguments.format)
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            answered = _answered(model, some, arguments)
            left_out += len(some) - len(answered)
            for question, answers in answered:
                writer.write(question, answers)
            progress.add(len(some))
        writer.end()
    if left_out:
        sys.stderr.write(f"{left_out} questions have no answer: their pictures cannot be read\n")
    return int(left_out > 0)


def questions(arguments: argparse.Namespace) -> Iterator[Asked]:
    """What is asked, in the file's order or by the pictures' names.

    Raises:
        Mt2stError: no pictures, or a question that cannot be read; its place is named.
    """
    if arguments.question is not None:
        for path in pictures(arguments.images):
            yield Asked(path.name, path, arguments.question)
        return
    folder = Path(arguments.images)
    if not folder.is_dir():
        raise Mt2stError(f"--images {arguments.images} is no folder; --questions names the pictures inside it")
    for place, row in _rows(arguments.questions):
        name = row.get("image")
        if name is None and "image_id" in row:
            try:
                name = arguments.image_name.format(image_id=row["image_id"])
            except (LookupError, ValueError, AttributeError) as error:
                raise Mt2stError(f"--image-name {arguments.image_name!r} does not fit {place} ({error})") from None
        if not isinstance(name, str) or not isinstance(row.get("question"), str):
            raise Mt2stError(
                f"{place} needs the texts question and image (or image_id); it has {', '.join(row) or 'none'}"
            )
        yield Asked(row.get("question_id", name), folder / name, row["question"])


def pictures(place: str) -> list[Path]:
    """Picture files of a folder (its subfolders too), a pattern or one file, sorted by name.

    Raises:
        Mt2stError: there are none.
    """
    path = Path(place)
    if path.is_dir():
        return picture_files(path)
    if path.is_file():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(place, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    if not found:
        raise Mt2stError(
            f"--images {place} holds no pictures ({' '.join(PICTURE_ENDINGS)}); give a folder, a file or a pattern"
        )
    return sorted(found)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of a file of JSON lines, or of the VQA challenge's JSON."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise Mt2stError(f"--questions {path} does not exist") from None
    except UnicodeDecodeError as error:
        raise Mt2stError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and isinstance(whole.get("questions"), list):
        found: Sequence[tuple[str, Any]] = [
            (f"{path}, question {number}", row) for number, row in enumerate(whole["questions"])
        ]
    elif isinstance(whole, list):
        found = [(f"{path}, question {number}", row) for number, row in enumerate(whole)]
    else:
        found = [
            (f"{path}, line {number}", _json(line, f"{path}, line {number}"))
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
    for place, row in found:
        if not isinstance(row, dict):
            raise Mt2stError(f'{place} is no JSON object; write {{"question_id": …, "image": …, "question": …}}')
        yield place, row


def _json(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Mt2stError(f"{place} is no JSON ({error})") from None


def _answered(model: Any, asked: Sequence[Asked], arguments: argparse.Namespace) -> list[tuple[Asked, list[Any]]]:
    """Each question with its answers; with --on-error skip without those whose picture cannot be read."""
    readable: dict[Path, Any] = {}
    for path in dict.fromkeys(question.image for question in asked):
        try:
            readable[path] = model.pixels([path])[0]
        except Mt2stError as error:
            if arguments.on_error == "fail":
                raise
            sys.stderr.write(f"left out: {error}\n")
    kept = [question for question in asked if question.image in readable]
    positions = {path: number for number, path in enumerate(readable)}
    answers = model.answer_all(
        list(readable.values()),
        [question.question for question in kept],
        question_image=[positions[question.image] for question in kept],
        top=arguments.top,
        batch_size=arguments.batch_size,
    )
    return list(zip(kept, answers, strict=True))


class _Writer:
    """Writes answers one by one."""

    def __init__(self, stream: TextIO, form: str) -> None:
        self._stream, self._form = stream, form
        self._first = True
        if form == "vqa":
            stream.write("[")

    def write(self, asked: Asked, answers: Sequence[Any]) -> None:
        if self._form == "vqa":
            row: dict[str, Any] = {"question_id": asked.question_id, "answer": answers[0].text}
            self._stream.write(f"{'' if self._first else ','}\n{json.dumps(row, ensure_ascii=False)}")
        else:
            row = {
                "question_id": asked.question_id,
                "image": str(asked.image),
                "question": asked.question,
                "answer": answers[0].text,
                "probability": round(answers[0].probability, 6),
            }
            if len(answers) > 1:
                row["answers"] = [
                    {"answer": answer.text, "probability": round(answer.probability, 6)} for answer in answers
                ]
            self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._first = False

    def end(self) -> None:
        if self._form == "vqa":
            self._stream.write("\n]\n")


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """The terminal, or a file that is whole or not there."""
    if path is None:
        yield sys.stdout
        return
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as stream:
        yield stream
