"""Exact ranks of image-text retrieval in both directions from one streamed product.

Two images and four captions, cosine similarities S[text, image], text_image_index = [0, 0, 1, 1]:

                image 0   image 1
    caption 0     0.9*      0.2       text → image: captions 0 and 2 find their image at rank 1,
    caption 1     0.4*      0.5       caption 1 at rank 2, for image 1 scores higher, and caption 3 at rank 2, for a tie
    caption 2     0.3       0.8*      counts against it. image → text: the best caption of either image has rank 1;
    caption 3     0.1       0.1*      caption 1 is second in image 0's list, caption 3 fourth in image 1's.

Nothing is sorted and no score is kept. The score of each text with its own image is known before the product starts,
and a rank is 1 + the number of others that reach it: per row for text → image, per column for image → text. Positives
are struck out, so relevant items never count against each other.

**Exact, not nearly.** A float32 product decides what it can: scores further from the threshold than its rounding error
could move them. What lies closer is decided in float64. Two scores closer than the rounding error of float64 are tied,
and ties count against the relevant item, so a constant embedding ranks last everywhere.

Shape legend: N images, C texts, E width; b texts × w images a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mt2st.errors import Mt2stError
from mt2st.vectors import as_matrix, row_norms

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RetrievalRanks:
    """Ranks from 1, pessimistic among ties.

    Attributes:
        text_to_image: [C], the place of each text's image in the list of all images.
        image_to_text: [N], the place of the image's best text in the list of all texts that are not its own; 0 for an
            image without texts, which is part of the gallery but no query.
        image_to_text_each: [C], the place of each text in its own image's list of all texts (what recall@k counts).
    """

    text_to_image: Ints
    image_to_text: Ints
    image_to_text_each: Ints


def checked_owner(text_image_index: ArrayLike | Any, num_texts: int, num_images: int) -> Ints:
    """`text_image_index` as int64 [C].

    Raises:
        Mt2stError: no images or no texts, not whole numbers, another length than the texts, or numbers that are no
            image's.
    """
    if num_texts == 0 or num_images == 0:
        raise Mt2stError(f"nothing to evaluate: {num_images} images and {num_texts} texts; give at least one of each")
    given = (
        text_image_index.detach().cpu().numpy() if hasattr(text_image_index, "detach") else np.asarray(text_image_index)
    )
    if given.shape != (num_texts,) or given.dtype.kind not in "iu":
        raise Mt2stError(
            f"text_image_index has shape {given.shape} and type {given.dtype}; give {num_texts} whole numbers, the "
            "image of each text"
        )
    if (bad := np.flatnonzero((given < 0) | (given >= num_images))).size:
        raise Mt2stError(
            f"text_image_index[{bad[0]}] = {given[bad[0]]} is no image's number; there are {num_images}, numbered from "
            "0"
        )
    return given.astype(np.int64)


def retrieval_ranks(
    image_embeddings: Any,
    text_embeddings: Any,
    text_image_index: ArrayLike,
    *,
    threads: int = 0,
    workers: int = 1,
    scratch: Path | None = None,
) -> RetrievalRanks:
    """Exact cosine-similarity ranks of both directions; memory grows with N + C, never with N × C.

    Args:
        image_embeddings: [N, E], NumPy or torch, float16 to float64, any strides, or the path of an `.npy` file; never
            written to.
        text_embeddings: [C, E]. Where both are CUDA tensors, everything is counted there, in float64.
        text_image_index: [C], the image that each text belongs to; any number of texts an image.
        threads: threads in all; 0 = as many as the process may use. While it runs, other products of the process are
            held to them.
        workers: processes that count, each with one thread; 1 = this one, with `threads`. The ranks are the same for
            any number. All of them map the same files: give paths, or arrays are written to `scratch` first.
        scratch: folder for files of several workers while they run, N × E × 4 bytes; None = the system's.

    Raises:
        Mt2stError: NaN, infinite or zero vectors, unequal widths, no items, indices out of range, or a worker process
            that ended without a word.
    """
    if workers < 1:
        raise Mt2stError(f"workers = {workers} must be ≥ 1; 1 counts in this process")
    if getattr(image_embeddings, "is_cuda", False) and getattr(text_embeddings, "is_cuda", False):
        from mt2st.metrics.ranks_cuda import competitors_on_gpu

        owner = checked_owner(text_image_index, len(text_embeddings), len(image_embeddings))
        num_images = len(image_embeddings)
        positive, ahead_images, ahead_texts = competitors_on_gpu(image_embeddings, text_embeddings, owner)
    else:
        from mt2st.metrics.counting import Gallery, count_competitors

        images = as_matrix("image_embeddings", image_embeddings)
        texts = as_matrix("text_embeddings", text_embeddings, width=images.shape[1])
        num_images = len(images)
        owner = checked_owner(text_image_index, len(texts), num_images)
        gallery = Gallery(
            images, row_norms("image_embeddings", images), texts, row_norms("text_embeddings", texts), owner
        )
        if workers == 1:
            positive, ahead_images, ahead_texts = count_competitors(gallery, threads)
        else:
            from mt2st.metrics.ranks_processes import count_over_processes

            given = {"images": image_embeddings, "texts": text_embeddings}
            paths = {name: source for name, source in given.items() if isinstance(source, Path)}
            positive, ahead_images, ahead_texts = count_over_processes(gallery, paths, workers, scratch)
    return _ranks(owner, positive, ahead_images, ahead_texts, num_images)


def _ranks(
    owner: Ints, positive: NDArray[np.float64], ahead_images: Ints, ahead_texts: Ints, num_images: int
) -> RetrievalRanks:
    """Ranks from counts: how many images [C] and foreign texts [C] reach each text's own score."""
    best = np.full(num_images, np.iinfo(np.int64).max)
    np.minimum.at(best, owner, ahead_texts)
    has_text = np.bincount(owner, minlength=num_images) > 0
    return RetrievalRanks(
        text_to_image=1 + ahead_images,
        image_to_text=np.where(has_text, 1 + np.where(has_text, best, 0), 0),
        image_to_text_each=1 + ahead_texts + place_among_own(owner, positive),
    )


def place_among_own(owner: Ints, positive: NDArray[np.float64]) -> Ints:
    """Place [C], from 0, of each text among the texts of its image, best score first; equal scores keep their order."""
    order = np.lexsort((np.arange(len(owner)), -positive, owner))
    counts = np.bincount(owner)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = np.empty(len(owner), np.int64)
    place[order] = np.arange(len(owner)) - np.repeat(first, counts)
    return place
