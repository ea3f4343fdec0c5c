"""Preparing against a bare loop that decodes the same files and keeps nothing.

Both sides run in so many processes, in turn, process start included; so this module imports little.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mt2st.data.card import DatasetCard, Example

_CHUNK = 32


def draw_photos(folder: Path, count: int) -> None:
    """`count` JPEG files of 640×480 that compress like photos: smooth noise with edges. A few pictures, shifted."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    fine = random.integers(-12, 13, (480, 640, 3))
    pixels = np.clip(np.asarray(smooth, dtype=np.int64) + fine, 0, 255).astype(np.uint8)
    for number in range(count):
        Image.fromarray(np.roll(pixels, 7 * number, axis=1)).save(folder / f"{number:06d}.jpg", quality=90)


def decoded(path: Path, size: int) -> np.ndarray:
    """What no way around is: read, decode, resize to uint8 [size, size, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def bare_chunk(paths: Sequence[Path], size: int) -> int:
    """Decode these files and keep nothing; returns their number."""
    for path in paths:
        decoded(path, size)
    return len(paths)


class Photos:
    """Adapter of a folder of drawn photos."""

    CARD = DatasetCard(
        "photos", "Drawn photos", "retrieval", "drawn here", "1", "CC0-1.0", {"train": None}, "hit_rate@1"
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def examples(self, split: str) -> Iterator[Example]:
        """All photos, in order."""
        for path in sorted(self.folder.iterdir()):
            yield Example(image=path, image_id=path.name, captions=(f"photo {path.stem}",))


def measure_decoding(folder: Path, *, image_size: int, rounds: int, workers: int) -> dict[str, Any]:
    """Images a second of a bare loop and of `prepare`, in turn; the share is the median of the pairs."""
    from data_prep.prepare import prepare  # the bare loop's processes need none of it

    paths = sorted((folder / "photos").iterdir())
    chunks = [(paths[at : at + _CHUNK], image_size) for at in range(0, len(paths), _CHUNK)]
    bare, ours = [], []
    for turn in range(rounds):
        started = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            done = sum(pool.starmap(bare_chunk, chunks, chunksize=1))
        bare.append(done / (time.perf_counter() - started))
        started = time.perf_counter()
        prepare(Photos(folder / "photos"), out=folder / f"out{turn}", image_size=image_size, workers=workers)
        ours.append(len(paths) / (time.perf_counter() - started))
    shares = sorted(mine / limit for mine, limit in zip(ours, bare, strict=True))
    middle = rounds // 2
    return {
        "bare_images_per_second": sorted(bare)[middle],
        "prepare_images_per_second": sorted(ours)[middle],
        "share_of_limit": shares[middle],
        "shares": shares,
        "all_bare": bare,
        "all_prepare": ours,
    }
