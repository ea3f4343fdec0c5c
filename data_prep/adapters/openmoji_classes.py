"""OpenMoji pictograms with a class each, for classification and class-conditional generation.

OpenMoji's package brings no categories, so the class follows from Unicode: pictures whose base or parts show a person
are "people", flags are "flags", and the rest goes by the Unicode range of the first code point (faces, nature, food,
activities, travel, symbols; objects are what is left). Splits and everything else are those of `openmoji`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data_prep.adapters import openmoji
from mt2st.data.card import Example

CARD = replace(
    openmoji.CARD,
    name="openmoji_classes",
    title="OpenMoji pictograms, with classes by Unicode range",
    task="classification",
    main_metric="accuracy",
    splits={"train": None, "test": None},
    notes=f"{openmoji.CARD.notes} Classes are ours, by Unicode range.",
)

default_source = openmoji.default_source

# First code point, last code point (inclusive), class; the first range that holds the code point decides.
_RANGES = (
    (0x1F1E6, 0x1F1FF, "flags"),
    (0x1F600, 0x1F644, "faces"),
    (0x1F910, 0x1F917, "faces"),
    (0x1F920, 0x1F92F, "faces"),
    (0x1F970, 0x1F97A, "faces"),
    (0x1FAE0, 0x1FAE9, "faces"),
    (0x1F442, 0x1F487, "people"),
    (0x1F590, 0x1F596, "people"),
    (0x1F645, 0x1F64F, "people"),
    (0x1F90C, 0x1F91F, "people"),
    (0x1F930, 0x1F93E, "people"),
    (0x1F9B5, 0x1F9BB, "people"),
    (0x1F9CD, 0x1F9DF, "people"),
    (0x1FAC0, 0x1FAC8, "people"),
    (0x1FAF0, 0x1FAF8, "people"),
    (0x1F300, 0x1F32C, "nature"),
    (0x1F330, 0x1F344, "nature"),
    (0x1F400, 0x1F43F, "nature"),
    (0x1F980, 0x1F9AE, "nature"),
    (0x1FAB0, 0x1FABF, "nature"),
    (0x1F32D, 0x1F37F, "food"),
    (0x1F950, 0x1F96F, "food"),
    (0x1F9C0, 0x1F9CB, "food"),
    (0x1FAD0, 0x1FADF, "food"),
    (0x1F380, 0x1F3D3, "activities"),
    (0x1F3D4, 0x1F3F0, "travel"),
    (0x1F680, 0x1F6FF, "travel"),
    (0x1F400, 0x1F5FF, "objects"),
    (0x1F9AF, 0x1F9FF, "objects"),
    (0x1FA70, 0x1FAFF, "objects"),
    (0x0023, 0x2FFF, "symbols"),
    (0x3030, 0x32FF, "symbols"),
    (0x1F000, 0x1F2FF, "symbols"),
    (0x1F780, 0x1F7FF, "symbols"),
)


def fingerprint() -> str:
    """As `openmoji`'s, whose pictures and splits these are."""
    return openmoji.fingerprint()


def left_out(*, source: Path) -> dict[str, int]:
    """As `openmoji`'s."""
    return openmoji.left_out(source=source)


def examples(split: str, *, source: Path, image_size: int = openmoji.NATIVE_SIDE) -> Iterator[Example]:
    """The pictures of `split`, by code points."""
    for example in openmoji.examples(split, source=source, image_size=image_size):
        yield replace(example, label=class_of(example.image_id))


def class_of(stem: str) -> str:
    """The class of a picture from the code points in its file name.

    >>> class_of("1F469-1F3FD-200D-1F52C"), class_of("1F1E9-1F1EA"), class_of("1F34E")
    ('people', 'flags', 'food')
    """
    base, parts = openmoji.analyse(stem)
    if any(part.startswith(("tone:", "gender:")) for part in parts) or base.startswith(("1F9D1", "1F46A", "1F46B")):
        return "people"
    first = int(stem.split("-")[0], 16)
    if stem.startswith(("1F3F3", "1F3F4", "1F3C1", "1F6A9")):
        return "flags"
    return next((name for low, high, name in _RANGES if low <= first <= high), "objects")
