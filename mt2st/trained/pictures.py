"""Pictures as people have them, made into the pixels that a model was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mt2st.data.images import DEFAULT_MAX_PIXELS, decode_image
from mt2st.errors import Mt2stError

T = TypeVar("T")


def pixels_of(pictures: Sequence[Any], size: int, fit: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
    """Pixels [N, 3, size, size] uint8.

    Args:
        pictures: each a path, encoded bytes, a PIL image, or an array: uint8 [H, W, 3] RGB, or [H, W] grey. A tensor
            uint8 [3, size, size], a row of what this function made, is taken as it is.
        size: side of the square, in pixels.
        fit: how other aspect ratios become square; see `mt2st.data.images.decode_image`.
        max_pixels: largest width × height that is decoded.

    Raises:
        Mt2stError: a picture of another type, or one that cannot be decoded; it is named by path or position.
    """
    rows = []
    for number, picture in enumerate(pictures):
        made = isinstance(picture, Tensor) and picture.dtype == torch.uint8 and picture.shape == (3, size, size)
        if not made:
            image, name = _opened(picture, number), _name(picture, number)
            square = decode_image(image, size, fit=fit, max_pixels=max_pixels, name=name)
            picture = torch.from_numpy(np.array(square)).permute(2, 0, 1)
        rows.append(picture)
    return torch.stack(rows) if rows else torch.zeros(0, 3, size, size, dtype=torch.uint8)


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one of what is left."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _name(picture: Any, number: int) -> str:
    return str(picture) if isinstance(picture, str | Path) else f"picture {number}"


def _opened(picture: Any, number: int) -> Any:
    from PIL import Image as Pillow

    if isinstance(picture, str):
        return Path(picture)
    if isinstance(picture, Path | bytes | Pillow.Image):
        return picture
    if isinstance(picture, np.ndarray):
        grey = picture.ndim == 2
        if picture.dtype != np.uint8 or not (grey or (picture.ndim == 3 and picture.shape[2] == 3)) or not picture.size:
            raise Mt2stError(
                f"picture {number} is an array {picture.dtype} {list(picture.shape)}; give uint8 [height, width, 3], "
                "RGB, or [height, width], grey"
            )
        return Pillow.fromarray(np.ascontiguousarray(picture))
    raise Mt2stError(
        f"picture {number} is of type {type(picture).__name__}; give a path, encoded bytes, a PIL image or an array of "
        "uint8"
    )
