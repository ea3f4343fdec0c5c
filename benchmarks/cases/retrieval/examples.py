"""Examples of retrieval: a few texts, with the images that a run finds for them."""

from __future__ import annotations

import numpy as np

from benchmarks.cases.retrieval.captions import Captions
from benchmarks.cases.shared.examples import sample_rows, thumbnails
from benchmarks.records.examples import Example, Examples

_MOST, _TOP = 40, 3  # texts, and images found for each: every one is a picture in the run's folder


def examples_of(captions: Captions, images: np.ndarray, texts: np.ndarray, ranks: np.ndarray) -> Examples:
    """A few texts, each with its own image and the best ones.

    Args:
        images: [N, E] and texts: [C, E], embeddings of unit length.
        ranks: [C] int64, of each text's own image, 1 = first.
    """
    chosen = sample_rows(len(captions.texts), _MOST)
    best = np.argsort(-(texts[chosen] @ images.T), axis=1, kind="stable")[:, :_TOP]
    items = tuple(
        Example(
            item=place,
            question=captions.texts[place],
            score=float(ranks[place] == 1),
            note=f"rank {int(ranks[place])}",
            right_pictures=(str(captions.images[place]),),
            given_pictures=tuple(map(str, found)),
        )
        for place, found in zip(chosen.tolist(), best.tolist())
    )
    return Examples(items, thumbnails(captions.split, {*captions.images[chosen].tolist(), *best.ravel().tolist()}))
