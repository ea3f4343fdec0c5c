"""Ridge regression for floors, closed-form, its strength chosen on validation; components of pixels and of texts.

Shapes: N training rows, D inputs, K outputs, P pixels, C components.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mt2st.data.prepared import PreparedSplit

STRENGTHS = (1e-2, 1e-1, 1.0, 10.0, 100.0)  # of the ridge, as multiples of the inputs' mean square
_FLOOR_SIDE = 32  # pixels a side that a floor looks at
_FLOOR_IMAGES = 5000  # images that principal components are found on
_ROWS = 2048  # rows worked on at a time


def ridges(rows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    """The weights [D, K] of W = (XᵀX + λ·tr(XᵀX)/D·I)⁻¹ XᵀY for every λ of `STRENGTHS`.

    Args:
        rows: parts of X [n, D] and Y [n, K]; they are summed up, never held together.
    """
    gram: Any = 0.0
    cross: Any = 0.0
    for inputs, outputs in rows:
        gram = gram + inputs.T @ inputs
        cross = cross + inputs.T @ outputs
    scale = max(float(np.trace(gram)) / len(gram), 1e-12)
    for strength in STRENGTHS:
        yield np.linalg.solve(gram + strength * scale * np.eye(len(gram), dtype=gram.dtype), cross)


class PixelComponents:
    """Principal components of pictures, at most 32 × 32 pixels of them, standardised on the pictures of `split`.

    Args:
        components: C, at most; fewer where there are fewer pictures.
    """

    def __init__(self, split: PreparedSplit, components: int) -> None:
        from sklearn.decomposition import PCA

        chosen = np.linspace(0, split.num_images - 1, min(split.num_images, _FLOOR_IMAGES)).astype(np.int64)
        pixels = self._pixels(split, np.unique(chosen))
        self._pca: Any = PCA(min(components, *pixels.shape), whiten=True, svd_solver="randomized", random_state=0).fit(
            pixels
        )

    def of(self, split: PreparedSplit) -> np.ndarray:
        """Components of every picture, float32 [num_images, C]."""
        parts = np.array_split(np.arange(split.num_images), max(1, split.num_images // _ROWS))
        return np.concatenate([self._pca.transform(self._pixels(split, rows)) for rows in parts]).astype(np.float32)

    @staticmethod
    def _pixels(split: PreparedSplit, rows: np.ndarray) -> np.ndarray:
        step = max(1, split.image_size // _FLOOR_SIDE)
        pixels = split.pixels(rows)[:, step // 2 :: step, step // 2 :: step]
        return pixels.reshape(len(rows), -1).astype(np.float32) / 255


class TextComponents:
    """Singular vectors of texts' TF-IDF, found on `texts`.

    Args:
        components: K, at most.
        longest: words of the longest n-grams.
    """

    def __init__(self, texts: Sequence[str], components: int, longest: int = 1) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._words: Any = TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        counts = self._words.fit_transform(texts)
        self._svd: Any = TruncatedSVD(max(1, min(components, min(counts.shape) - 1)), random_state=0).fit(counts)

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """Components of every text, float32 [len(texts), K]."""
        found: np.ndarray = self._svd.transform(self._words.transform(texts)).astype(np.float32)
        return found


def in_parts(count: int) -> Iterator[slice]:
    """Slices that cover `count` rows."""
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))
