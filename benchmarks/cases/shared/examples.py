"""Which test items a run keeps as examples, and how small their pictures are."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from benchmarks.records.examples import MOST_EXAMPLES
from mt2st.data.splits import PreparedSplit

_PIXELS = 64  # the longer side of a picture


def sample_rows(count: int, most: int = MOST_EXAMPLES) -> np.ndarray:
    """Places [min(count, most)] int64, rising, of test items: the same for every run with as many test items."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def thumbnails(split: PreparedSplit, images: Iterable[int]) -> dict[str, bytes]:
    """Pictures of a split as small PNG: image row as a key → bytes."""
    rows = np.unique(np.fromiter(images, np.int64))
    return {str(row): thumbnail(pixels) for row, pixels in zip(rows.tolist(), split.pixels(rows))} if len(rows) else {}


def thumbnail(pixels: np.ndarray) -> bytes:
    """A picture [H, W, 3] uint8 as a PNG of at most 64 pixels a side, in at most 128 colours."""
    image = Image.fromarray(pixels)
    image.thumbnail((_PIXELS, _PIXELS))
    stream = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(stream, format="png", optimize=True)
    return stream.getvalue()
