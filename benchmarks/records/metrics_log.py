"""`metrics.jsonl`: one JSON object a line, appended as training goes, cut back to a step on resume.

A line is one write, so a kill can tear only the last one; a torn last line is dropped when reading and removed before
the next append. Anything else that is not a JSON object is damage, and named with its line number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mt2st.errors import Mt2stError
from mt2st.files import write_bytes


def append_line(path: Path, line: bytes) -> None:
    """Append `line` (without newline) in a single write; a torn tail left by a killed writer is removed first."""
    with path.open("a+b", buffering=0) as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            if stream.read(1) != b"\n":
                stream.truncate(_whole_bytes(path))
        content = line + b"\n"
        written = stream.write(content)  # unbuffered: one system call
        if written != len(content):
            raise Mt2stError(
                f"{path}: only {written} of {len(content)} bytes could be written; make room on the disk and resume"
            )


def append_metrics(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON object. Numbers that are not finite become null: JSON has no form for them.

    Raises:
        Mt2stError: a value has no JSON form.
        OSError: the disk is full or the folder cannot be written.
    """
    append_line(path, json.dumps(plain(values, str(path)), ensure_ascii=False, allow_nan=False).encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a missing file has none. A torn last line is dropped.

    Raises:
        Mt2stError: a line before the last is not a JSON object.
    """
    return [value for _, value in _parsed(path)]


def truncate_metrics(path: Path, step: int) -> int:
    """Drop every line from the first one whose `step` exceeds `step` on, and a torn tail; returns how many whole lines
    went.

    What a resume from a checkpoint at `step` does, so that a resumed log equals an uninterrupted one.
    """
    lines = _parsed(path)
    keep = next((number for number, (_, value) in enumerate(lines) if _step_of(value) > step), len(lines))
    kept = b"".join(raw + b"\n" for raw, _ in lines[:keep])
    if path.exists() and path.stat().st_size != len(kept):
        write_bytes(path, kept)
    return len(lines) - keep


def plain(value: Any, place: str) -> Any:
    """`value` as plain JSON types: numpy scalars and arrays become numbers and lists, tuples lists, not-finite numbers
    null.

    Raises:
        Mt2stError: something in it has no JSON form; the message names `place` and the key.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if abs(value) != float("inf") and value == value else None
    if isinstance(value, Mapping):
        return {_key(key, place): plain(item, f"{place}: {key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, place) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy here
        return plain(value.tolist(), place)
    raise Mt2stError(
        f"{place}: {type(value).__name__} {value!r} has no JSON form; give numbers, texts, lists or mappings"
    )


def _key(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise Mt2stError(f"{place}: the key {key!r} is no text; JSON objects have text keys")
    return key


def _step_of(value: Mapping[str, Any]) -> float:
    step = value.get("step", -1)
    return step if isinstance(step, (int, float)) else -1


def _whole_bytes(path: Path) -> int:
    """Bytes up to and including the last newline."""
    return path.read_bytes().rfind(b"\n") + 1


def _parsed(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or empty
    parsed = []
    for number, raw in enumerate(whole, start=1):
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise Mt2stError(
                f"{path}, line {number}, is not a JSON object: damaged; delete the file, it only holds the log"
            )
        parsed.append((raw, value))
    return parsed
