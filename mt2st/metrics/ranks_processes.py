"""Competitors counted by several processes that map the same files: the counts of `counting.count_competitors`.

The blocks of texts are those of one process, and each is multiplied and compared as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mt2st.metrics.counting import BLOCK_TEXTS, Columns, CompetitorCount, Doubles, Gallery, Ints, positive_scores
from mt2st.processes import side_by_side
from mt2st.threads import product_threads, usable_threads
from mt2st.vectors import as_matrix, write_unit_rows

_SHARES_PER_WORKER = 4  # so that a slow process holds up the others by little


@dataclass(frozen=True)
class _Files:
    """Where the processes find what they count: `images` and `texts` as given, all else in `folder`."""

    folder: Path
    images: Path
    texts: Path


@dataclass(frozen=True)
class _Share:
    """Every `of`-th block of texts, from block `first` on."""

    files: _Files
    first: int
    of: int


def count_over_processes(
    gallery: Gallery, paths: Mapping[str, Path], workers: int, scratch: Path | None = None
) -> tuple[Doubles, Ints, Ints]:
    """What `count_competitors(gallery)` gives.

    Args:
        gallery: what is counted.
        paths: "images" and "texts" → the `.npy` file that holds them, where there is one; others are written.
        workers: processes.
        scratch: folder for files while it runs, N × E × 4 bytes and what `paths` lacks; None = the system's.
    """
    exact = positive_scores(gallery, usable_threads())
    blocks = -(-len(gallery.texts) // BLOCK_TEXTS)
    ahead_images, ahead_texts = np.zeros(len(gallery.texts), np.int64), np.zeros(len(gallery.texts), np.int64)
    with TemporaryDirectory(prefix=".mt2st-ranks-", dir=scratch) as place:
        folder = Path(place)
        order = Columns(gallery.owner, len(gallery.images)).image_of_column
        write_unit_rows(folder / "image_rows.npy", gallery.images, gallery.image_norms, order)
        small = {"image_norms": gallery.image_norms, "text_norms": gallery.text_norms, "owner": gallery.owner}
        given: dict[str, Any] = {"images": gallery.images, "texts": gallery.texts}
        for name, array in ({**small, "exact": exact} | {n: a for n, a in given.items() if n not in paths}).items():
            np.save(folder / f"{name}.npy", array)
        files = _Files(folder, *(paths.get(name, folder / f"{name}.npy").absolute() for name in given))
        shares = min(blocks, _SHARES_PER_WORKER * workers)
        for _, (images, texts) in side_by_side(_count, [_Share(files, at, shares) for at in range(shares)], workers):
            ahead_images += images
            ahead_texts += texts
    _opened.cache_clear()
    return exact, ahead_images, ahead_texts


def _count(share: _Share) -> tuple[Ints, Ints]:
    count = _opened(share.files)
    starts = range(0, len(count.gallery.texts), BLOCK_TEXTS)
    with product_threads(1):
        counted = count.blocks(starts[share.first :: share.of])
    return counted.ahead_images, counted.ahead_texts


@lru_cache(maxsize=1)
def _opened(files: _Files) -> CompetitorCount:
    def mapped(name: str) -> Any:
        return np.load(files.folder / f"{name}.npy", mmap_mode="r")

    owner = np.asarray(mapped("owner"))
    images, texts = as_matrix("images", files.images), as_matrix("texts", files.texts)
    gallery = Gallery(images, mapped("image_norms"), texts, mapped("text_norms"), owner)
    return CompetitorCount(gallery, mapped("exact"), Columns(owner, len(images)), mapped("image_rows"))
