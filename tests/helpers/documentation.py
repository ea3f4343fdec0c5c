"""The blocks of a page of the documentation: what the tests run is what a reader sees."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "data_prep" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
CARDS = tuple(sorted((ROOT / "benchmarks" / "cases").glob("*/README.md")))
_BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, its text, and the file's name where the page says to save it."""

    kind: str
    text: str
    file: str


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield Block(match["kind"], match["text"], match["file"] or "")


def files_of(page: Path) -> dict[str, str]:
    """File name → text, of the blocks that the page says to save."""
    return {block.file: block.text for block in blocks_of(page) if block.file}


def commands_of(page: Path) -> list[list[str]]:
    """The words of each command in the page's console blocks, without `python -m`."""
    lines = [line for block in blocks_of(page) if block.kind == "console" for line in block.text.splitlines()]
    found = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    assert all(words[:2] == ["python", "-m"] for words in found), found
    return [words[2:] for words in found]
