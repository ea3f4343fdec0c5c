"""Scenes of coloured OpenMoji pictograms on a grid: the parts, drawn once, and the pictures put together of them.

A scene is a handful of *things*, each of a kind (a cat) and a colour (red), in the cells of a 2 × 2 grid. A pictogram
gets its colour by giving it to every filled area of the SVG; its black lines stay. Two scene sets use this module:
`scene_questions` and `scene_captions`. Everything follows from a set's name, the split and the scene's number, so a set
is the same on every machine, whatever is made before.

Of the 96 combinations of kind and colour, 16 are *unseen*: no training scene holds one, though each of its parts is in
many.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.adapters import openmoji
from data_prep.svg import draw_svg
from mt2st.errors import Mt2stError, check_range
from mt2st.files import file_hash
from mt2st.randomness import generator

if TYPE_CHECKING:
    from PIL.Image import Image

PICTOGRAMS = {  # kind → the code points in its file's name
    "butterfly": "1F98B", "car": "1F697", "cat": "1F431", "heart": "2764", "moon": "1F319", "star": "2B50",
    "tree": "1F332", "umbrella": "2602", "balloon": "1F388", "bell": "1F514", "cloud": "2601", "fish": "1F41F",
}  # fmt: skip
COLOURS = {
    "red": "#e6261f", "orange": "#f7a325", "yellow": "#f5e12b", "green": "#34a853", "blue": "#2b6fe3",
    "purple": "#9c3fc9", "brown": "#8a5a33", "gray": "#9a9a9a",
}  # fmt: skip
KINDS = tuple(PICTOGRAMS)
HUES = tuple(COLOURS)
SIDE = 32  # of a picture, in pixels
GRID = 2  # cells a side
CELL = SIDE // GRID
PART = CELL - 2  # a pictogram leaves room to move by 0 … 2 pixels in its cell
DIRECTIONS = ("left of", "right of", "above", "below")

_FILL = re.compile(r'fill="#(?!000)[0-9a-fA-F]{3,6}"')


@dataclass(frozen=True)
class Thing:
    """A pictogram in a cell; columns count from the left, rows from the top."""

    kind: str
    colour: str
    column: int = 0
    row: int = 0

    @property
    def name(self) -> str:
        """ "red cat"."""
        return f"{self.colour} {self.kind}"

    @property
    def unseen(self) -> bool:
        """Whether no training scene shows this combination."""
        return (KINDS.index(self.kind) - HUES.index(self.colour)) % 6 == 0

    def stands(self, direction: str, other: Thing) -> bool:
        """Whether this thing is `direction` of the other, by columns or by rows alone."""
        return {
            "left of": self.column < other.column,
            "right of": self.column > other.column,
            "above": self.row < other.row,
            "below": self.row > other.row,
        }[direction]


def checked_size(size: int | str, most: int) -> int:
    """The number of scenes of a split: `size`, which a command line gives as a text; 0 = `most`.

    Raises:
        Mt2stError: it is no number, below 0 or above `most`.
    """
    try:
        count = int(size)
    except ValueError:
        raise Mt2stError(f"size = {size!r} is no number; give the scenes of each split, 0 = as published") from None
    check_range("size", count, 0, most, "it is the number of scenes of each split; 0 = as published")
    return count or most


def with_article(name: str) -> str:
    """ "a red cat", "an orange cat"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def placed(names: Sequence[tuple[str, str]], random: np.random.Generator) -> tuple[Thing, ...]:
    """Things of these kinds and colours, each in a cell of its own."""
    cells = random.permutation(GRID * GRID)[: len(names)]
    return tuple(
        Thing(kind, colour, int(cell) % GRID, int(cell) // GRID)
        for (kind, colour), cell in zip(names, cells, strict=True)
    )


def random_of(dataset: str, split: str, number: int) -> np.random.Generator:
    """What draws scene `number` of a split."""
    return generator(0, f"{dataset}/{split}", number)


def picture(things: Sequence[Thing], source: Path, random: np.random.Generator) -> Image:
    """The scene on white ground, SIDE × SIDE; each pictogram is moved by 0 … 2 pixels each way."""
    from PIL import Image as Pillow

    canvas = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    moves = random.integers(0, CELL - PART + 1, (len(things), 2))
    for thing, (down, right) in zip(things, moves, strict=True):
        top, left = thing.row * CELL + down, thing.column * CELL + right
        canvas[top : top + PART, left : left + PART] = part(source, thing.kind, thing.colour)
    return Pillow.fromarray(canvas)


@lru_cache(maxsize=1024)
def part(source: Path, kind: str, colour: str) -> np.ndarray:
    """Pixels uint8 [PART, PART, 3] of a pictogram in a colour; drawn when first asked for.

    Raises:
        Mt2stError: `source` lacks the file.
    """
    from PIL import Image as Pillow

    path = source / f"{PICTOGRAMS[kind]}.svg"
    if not path.is_file():
        raise Mt2stError(
            f"{path}, the pictogram of a {kind}, is missing; give the folder of OpenMoji's colour SVG files"
        )
    text = _FILL.sub(f'fill="{COLOURS[colour]}"', path.read_text(encoding="utf-8"))
    drawn = Pillow.open(io.BytesIO(draw_svg(text.encode(), 4 * PART, str(path)))).convert("RGB")
    return np.asarray(drawn.resize((PART, PART), Pillow.Resampling.BOX), dtype=np.uint8)


def fingerprint() -> str:
    """This file, and the versions of what draws: others may give other pixels."""
    return f"{file_hash(Path(__file__))}, resvg-py {version('resvg-py')}"


default_source = openmoji.default_source
