"""Records of a large JSON file one at a time, in the memory of one record: annotation files reach many gigabytes.

`json.load` of GQA's balanced training questions takes over 10 GB; this takes a buffer of a few megabytes.

Why not ijson 3.6 (backend yajl2_c)? It is faster where records are small: 0.35 of our time for a list of 980,000 VQA
questions in 100 MB, 0.28 where they are members of an object, 1.22 for 127,000 annotations of ten answers each. But it
lacks errors that we need. It bounds no nesting: 40 kB of "[" take 3.9 GB, the square of it for twice as many, where
this reader says "nested too deeply". It writes "?" for half a surrogate pair and says nothing. It refuses integers
above 64 bits and NaN, which Python's `json` writes and reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mt2st.errors import Mt2stError

_BLOCK_CHARACTERS = 1 << 20
# One record, or a value that is skipped, may not be larger: a file without structure would be read into memory whole.
MAX_VALUE_CHARACTERS = 256 << 20
_LONGEST_TAIL = 8  # characters after a whole number that can belong to it: ".", "e", "e+"
_SPACE = " \t\r\n"


def iterate_records(path: Path, key: str | None = None) -> Iterator[tuple[str, Any]]:
    """The elements of a JSON array, or the members of a JSON object, in file order.

    Args:
        path: the file.
        key: the member of the top-level object that holds the records; None: the top level itself.

    Yields:
        (name, value): name is the position in an array ("0", "1", …), or the member's key.

    Raises:
        Mt2stError: the file is missing, not UTF-8, not JSON at a named record, or has no `key`.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            reader = _Reader(stream, path)
            if key is not None:
                reader.enter(key)
            yield from reader.elements()
    except FileNotFoundError:
        raise Mt2stError(
            f"{path} is missing; the source folder must hold it (see `python -m data_prep list`)"
        ) from None
    except UnicodeDecodeError as error:
        raise Mt2stError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); download it again"
        ) from None


def iterate_objects(path: Path, key: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """`iterate_records`, where each must be an object with fields; another one is an error that names it."""
    for name, value in iterate_records(path, key):
        if not isinstance(value, dict):
            raise Mt2stError(f"{path}, record {name} is {str(value)[:60]!r}, not an object with fields")
        yield name, value


class _Reader:
    def __init__(self, stream: TextIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._decoder = json.JSONDecoder()
        self._place = "start"

    def enter(self, key: str) -> None:
        """Move to the value of `key` in the object that comes next."""
        self._expect("{")
        while (found := self._peek()) != "}":
            if found == ",":
                self._at += 1
                continue
            name = self._value()
            self._expect(":")
            if name == key:
                return
            self._value()
        raise Mt2stError(f"{self._path} has no {key!r} at its top level; is it the right file?")

    def elements(self) -> Iterator[tuple[str, Any]]:
        """The elements of the array or object that comes next."""
        opening = self._peek()
        if opening not in ("[", "{"):
            raise Mt2stError(f"{self._path} holds {opening or 'nothing'!r} where a list of records should begin")
        self._at += 1
        closing = "]" if opening == "[" else "}"
        number = 0
        while self._peek() != closing:
            if number:
                self._expect(",")
            self._place = f"record {number}"
            name = str(number)
            if opening == "{":
                name = self._value()
                self._expect(":")
            yield name, self._value()
            number += 1

    def _peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._buffer) or not self._fill():
                return self._buffer[self._at : self._at + 1]

    def _expect(self, character: str) -> None:
        if (found := self._peek()) != character:
            raise self._broken(f"expected {character!r}, found {found!r}" if found else "the file ends early")
        self._at += 1

    def _may_go_on(self, value: Any, end: int) -> bool:
        """Whether the next block could make another number of this one: "-0" of "-0.", 1 of "1e"."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and len(self._buffer) - end < _LONGEST_TAIL and set(self._buffer[end:]) <= set("0123456789.eE+-")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
                if self._ended or not self._may_go_on(value, end) or not self._fill():
                    self._at = end
                    return value
            except RecursionError:
                raise self._broken("nested too deeply") from None
            except json.JSONDecodeError as error:
                if len(self._buffer) - self._at > MAX_VALUE_CHARACTERS:
                    raise self._broken("one value is larger than any annotation") from None
                if not self._fill():
                    raise self._broken(error.msg) from None

    def _fill(self) -> bool:
        """Read on. Twice the buffer each time, so that a value of n characters costs O(n). Returns False at the end."""
        self._buffer = self._buffer[self._at :]
        self._at = 0
        block = self._stream.read(max(_BLOCK_CHARACTERS, len(self._buffer)))
        self._buffer += block
        self._ended = not block
        return bool(block)

    def _broken(self, reason: str) -> Mt2stError:
        return Mt2stError(f"{self._path}, {self._place}: not valid JSON ({reason}); download the file again")
