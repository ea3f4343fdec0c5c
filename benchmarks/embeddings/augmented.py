"""Many real embeddings from few pictures: random crops, flips and colours of pictures, through a trained encoder.

A stand-in for a large gallery: near-duplicates lie close together, as they do in collections of photographs, but there
are no more subjects than pictures. Item i is picture i mod P, augmented by a draw that i alone decides.

Shape legend: P pictures, N embeddings, B a batch, S the side of a picture, D the width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import mt2st
from mt2st.data.images import picture_files
from mt2st.errors import Mt2stError, check_range
from mt2st.files import atomic_path, write_text
from mt2st.vectors import write_npy_header

BATCH = 500
_SMALLEST_CROP = 0.6  # of the side
_COLOUR, _BRIGHTNESS = 0.25, 0.15  # largest change of a channel's factor, and of all channels' offset


def write_augmented(
    run_dir: Path, pictures: Path, out: Path, items: int, queries: int, seed: int, told: Callable[[int], None]
) -> None:
    """Write `gallery.npy` [items, D], `queries.npy` [queries, D] and `augmented.json` to `out`.

    Queries are augmentations of their own, by draws that no item has.

    Args:
        run_dir: a finished run of vqa or retrieval.
        pictures: a folder of pictures.
        out: a folder, new or empty of these files.
        items: N.
        queries: as many.
        seed: of the draws.
        told: called with the number of embeddings that are done.

    Raises:
        Mt2stError: the run or the pictures cannot be read, the run embeds no pictures, or a number is out of range.
    """
    check_range("--items", items, 1, 1 << 33)
    check_range("--queries", queries, 1, 1 << 30)
    model: Any = mt2st.load(run_dir)
    if not hasattr(model, "pixels"):
        raise Mt2stError(f"{run_dir} embeds no pictures; give a run of vqa or retrieval")
    files = picture_files(pictures)
    pixels = model.pixels(files)  # uint8 [P, 3, S, S]
    width = model.embedding_width
    done = 0
    for name, first, count in (("gallery", 0, items), ("queries", items, queries)):
        with atomic_path(out / f"{name}.npy") as partial, partial.open("wb") as stream:
            write_npy_header(stream, np.dtype(np.float32), (count, width))
            for start in range(0, count, BATCH):
                stop = min(count, start + BATCH)
                batch = augmented(pixels, first + start, first + stop, seed)
                stream.write(_embedded(model, batch).tobytes())
                done += stop - start
                told(done)
    about = {**model.about, "pictures": len(files), "items": items, "queries": queries, "seed": seed}
    write_text(out / "augmented.json", json.dumps(about, indent=1) + "\n")


def augmented(pixels: Tensor, start: int, stop: int, seed: int) -> Tensor:
    """Items `start` to `stop`, uint8 [stop − start, 3, S, S]: crop and flip, then factor and offset of the colours."""
    numbers = torch.arange(start, stop)
    rows = [np.random.default_rng([seed, number]).random(8, dtype=np.float32) for number in range(start, stop)]
    draws = torch.from_numpy(np.stack(rows))  # [B, 8] in [0, 1)
    images = pixels[numbers % len(pixels)].float() / 255
    side = _SMALLEST_CROP + (1 - _SMALLEST_CROP) * draws[:, 0]
    flip = torch.where(draws[:, 1] < 0.5, -1.0, 1.0)
    move = (2 * draws[:, 2:4] - 1) * (1 - side)[:, None]  # of the crop's middle, so that it stays inside
    zero = torch.zeros_like(side)
    places = torch.stack(
        [torch.stack([side * flip, zero, move[:, 0]], 1), torch.stack([zero, side, move[:, 1]], 1)], 1
    )  # [B, 2, 3]
    grid = functional.affine_grid(places, list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    factor = 1 + _COLOUR * (2 * draws[:, 4:7] - 1)
    offset = _BRIGHTNESS * (2 * draws[:, 7] - 1)
    images = images * factor[:, :, None, None] + offset[:, None, None, None]
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


@torch.inference_mode()
def _embedded(model: Any, pixels: Tensor) -> np.ndarray:
    """Unit embeddings [B, D] float32."""
    features = model.encoder.features({"pixels": pixels.to(model.device)})
    return np.ascontiguousarray(features.image_embedding.float().cpu().numpy())
