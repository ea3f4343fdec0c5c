"""How many competitors reach each positive score: the inner loop of `ranks.py` on the CPU, in NumPy.

Each tile of the product is compared while it lies in the second-level cache, twice per threshold: with the threshold
lowered and raised by the float32 product's error bound. Equal counts mean that nothing was close; a difference is
settled in float64. Where few scores pass, those are looked at one by one. Tiles are whole rows of a block: a 64 × 2,040
corner of it took four times as long to compare. Bools are added up eight at a time, as the bytes of 64-bit words, or by
rows of bytes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt2st.threads import product_threads, split_threads, usable_threads
from mt2st.vectors import divided_rows

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

BLOCK_TEXTS = 512  # rows of one matrix product; 1,024 were no faster
BLOCK_IMAGES = 6144  # columns of one matrix product: 12.6 MB of scores, in each of at most four workers
TILE_TEXTS = 64  # at most 255, so that a column's count fits a byte; 64 × 6,144 scores are 1.6 MB
_PAIRS_AT_ONCE = 512  # scratch of float64 recomputation: 2 × 512 × E × 8 bytes, 4 MB at width 512
_NONE = np.zeros(1, np.int64)
_SPARSE_SHARE = 1 / 32  # up to this share of scores above a threshold, they are looked at one by one
_SPARSE_PAIRS_SHARE = 1 / 6  # and so many pairs of a score and a threshold of its column
_DENSE_SHARE = 1 / 128  # from this share of close scores on, a float64 product is cheaper than single pairs


def tie_width(width: int) -> float:
    """Cosines of vectors `width` wide that differ by this or less are ties.

    It is twice a float64 cosine's own error, with u = 2⁻⁵³.
    """
    return 2 * (width + 16) * 2.0**-53


@dataclass(frozen=True)
class Gallery:
    """What the counts are about: embeddings as given, their lengths, the image of each text.

    `images` [N, E], `texts` [C, E].
    """

    images: NDArray[Any]
    image_norms: Doubles
    texts: NDArray[Any]
    text_norms: Doubles
    owner: Ints

    @property
    def product_error(self) -> float:
        """Bound on |float32 product − true cosine|.

        Any order of E additions and products errs by at most E·u·Σ|x_k·y_k| ≤ E·u for unit vectors, u = 2⁻²⁴ (Higham,
        "Accuracy and Stability of Numerical Algorithms", section 3.1); rounding both vectors and the threshold to
        float32 adds 3u, and 16u leave room for the higher-order terms.
        """
        return (self.images.shape[1] + 16) * 2.0**-24

    @property
    def tie(self) -> float:
        """Differences up to this are ties."""
        return tie_width(self.images.shape[1])

    def scores(self, texts: Ints, images: Ints) -> Doubles:
        """float64 cosines of pairs (texts[i], images[i])."""
        result = np.empty(len(texts))
        for start in range(0, len(texts), _PAIRS_AT_ONCE):
            left, right = texts[start : start + _PAIRS_AT_ONCE], images[start : start + _PAIRS_AT_ONCE]
            dots = np.einsum("ij,ij->i", self.texts[left].astype(np.float64), self.images[right].astype(np.float64))
            result[start : start + len(left)] = dots / (self.text_norms[left] * self.image_norms[right])
        return result

    def score_matrix(self, texts: Ints, images: Ints) -> Doubles:
        """float64 cosines of all pairs [texts, images]."""
        left = self.texts[texts].astype(np.float64) / self.text_norms[texts, None]
        right = self.images[images].astype(np.float64) / self.image_norms[images, None]
        return left @ right.T


@dataclass(frozen=True)
class _Thresholds:
    """A positive score, to be reached: `surely` is out of doubt above it, below `maybe` out of doubt not."""

    exact: Doubles
    maybe: NDArray[np.float32]
    surely: NDArray[np.float32]

    def take(self, places: Any) -> _Thresholds:
        return _Thresholds(self.exact[places], self.maybe[places], self.surely[places])


class _Worker:
    """Buffers and counts of one thread."""

    def __init__(self, num_texts: int) -> None:
        self.buffers: Bools = np.zeros((2, TILE_TEXTS, BLOCK_IMAGES), np.bool_)
        self.ahead_images: Ints = np.zeros(num_texts, np.int64)
        self.ahead_texts: Ints = np.zeros(num_texts, np.int64)

    def compare(self, buffer: int, tile: NDArray[np.float32], threshold: NDArray[np.float32]) -> Bools:
        """`tile >= threshold` [b, w] in buffer 0 or 1, with columns of False up to a multiple of 8."""
        height, width = tile.shape
        flags = self.buffers[buffer, :height, : -(-width // 8) * 8]
        np.greater_equal(tile, threshold, out=flags[:, :width])
        flags[:, width:] = False
        return flags


def count_competitors(gallery: Gallery, threads: int = 0) -> tuple[Doubles, Ints, Ints]:
    """Positive scores [C], images [C] and foreign texts [C] that reach them.

    `ahead_images[j]`: images other than j's own with score ≥ j's own score with its image; `ahead_texts[j]`: texts of
    other images whose score with j's image is ≥ j's.
    """
    starts = range(0, len(gallery.texts), BLOCK_TEXTS)
    workers, each = split_threads(threads or usable_threads(), len(starts))
    columns = Columns(gallery.owner, len(gallery.images))
    image_rows = divided_rows(gallery.images, gallery.image_norms, columns.image_of_column)
    count = CompetitorCount(gallery, positive_scores(gallery, workers), columns, image_rows)
    with product_threads(each), ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(count.blocks, starts[place::workers]) for place in range(workers)]
        counted = [job.result() for job in jobs]
    return (
        count.positive.exact,
        sum((worker.ahead_images for worker in counted), _NONE),
        sum((worker.ahead_texts for worker in counted), _NONE),
    )


class Columns:
    """The images ordered by their number of texts, most first.

    Then the first text of every image, the second of those that have one, and so on, belong to prefixes of the columns:
    layer p holds, for column c, the p-th text of that image. The layers together are the C texts, however unequal the
    images.

    Attributes:
        image_of_column: [N].
        own_column: [C], the column of each text's image.
        texts_of_column: [N], how many.
        layer_texts: for each p, the texts [number of images with more than p texts].
    """

    def __init__(self, owner: Ints, num_images: int) -> None:
        texts_per_image = np.bincount(owner, minlength=num_images)
        self.image_of_column: Ints = np.argsort(-texts_per_image, kind="stable")
        column_of_image = np.empty_like(self.image_of_column)
        column_of_image[self.image_of_column] = np.arange(num_images)
        self.own_column: Ints = column_of_image[owner]
        self.texts_of_column: Ints = texts_per_image[self.image_of_column]
        self._by_column = np.argsort(self.own_column, kind="stable")
        self._first = np.cumsum(self.texts_of_column) - self.texts_of_column
        widths = [int((texts_per_image > layer).sum()) for layer in range(int(texts_per_image.max()))]
        self.layer_texts: list[Ints] = [
            self._by_column[self._first[:width] + layer] for layer, width in enumerate(widths)
        ]

    def texts_at(self, column: Ints) -> tuple[Ints, Ints]:
        """All texts of the given columns, one column after the other, and each text's place in `column`."""
        counts = self.texts_of_column[column]
        which = np.repeat(np.arange(len(column)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return which, self._by_column[self._first[column][which] + within]


def positive_scores(gallery: Gallery, threads: int) -> Doubles:
    """The cosine [C] of each text with its own image."""
    with ThreadPoolExecutor(threads) as pool:
        parts = np.array_split(np.arange(len(gallery.texts)), threads)
        return np.concatenate(list(pool.map(lambda part: gallery.scores(part, gallery.owner[part]), parts)))


class CompetitorCount:
    """Thresholds of all positives, and the comparison of one block of scores with them.

    Args:
        gallery: what is counted.
        exact: its `positive_scores` [C].
        columns: the order of its images.
        image_rows: [N, E] float32, the images in that order, of length 1.
    """

    def __init__(self, gallery: Gallery, exact: Doubles, columns: Columns, image_rows: NDArray[np.float32]) -> None:
        self.gallery, self.columns, self.image_rows = gallery, columns, image_rows
        error = gallery.product_error
        self.positive = _Thresholds(exact, (exact - error).astype(np.float32), (exact + error).astype(np.float32))
        self.layers = [self.positive.take(texts) for texts in self.columns.layer_texts]
        self.lowest = self.layers[0].maybe.copy()  # lowest threshold of each column
        for layer in self.layers[1:]:
            np.minimum(self.lowest[: len(layer.maybe)], layer.maybe, out=self.lowest[: len(layer.maybe)])
        self.lowest = np.pad(self.lowest, (0, len(gallery.images) - len(self.lowest)), constant_values=np.inf)

    def blocks(self, starts: range) -> _Worker:
        """Multiply and count the blocks of texts that begin at `starts`.

        The counts are in the worker that comes back.
        """
        texts, images = self.gallery.texts, self.gallery.images
        worker = _Worker(len(texts))
        scores = np.empty((min(BLOCK_TEXTS, len(texts)), min(BLOCK_IMAGES, len(images))), np.float32)
        for first_text in starts:
            text_rows = divided_rows(texts, self.gallery.text_norms, slice(first_text, first_text + BLOCK_TEXTS))
            for first_image in range(0, len(images), BLOCK_IMAGES):
                image_rows = self.image_rows[first_image : first_image + BLOCK_IMAGES]
                block = scores[: len(text_rows), : len(image_rows)]
                np.matmul(text_rows, image_rows.T, out=block)
                columns = slice(first_image, first_image + len(image_rows))
                for start in range(0, len(block), TILE_TEXTS):
                    tile = block[start : start + TILE_TEXTS]
                    self._tile(worker, tile, slice(first_text + start, first_text + start + len(tile)), columns)
        return worker

    def _tile(self, worker: _Worker, tile: NDArray[np.float32], rows: slice, columns: slice) -> None:
        own = self.columns.own_column[rows]
        mine = np.flatnonzero((own >= columns.start) & (own < columns.stop))
        tile[mine, own[mine] - columns.start] = -np.inf  # relevant items never count against each other
        settler = _Settler(self, tile, np.arange(rows.start, rows.stop), self.columns.image_of_column[columns])

        mark = self.positive.take(rows)
        maybe = worker.compare(0, tile, mark.maybe[:, None])
        upper = _row_counts(maybe)
        if upper.sum() <= _SPARSE_SHARE * tile.size:
            row, column = _places(maybe)
            settler.few(worker.ahead_images, row, column, row + rows.start)
        else:
            surely = worker.compare(1, tile, mark.surely[:, None])
            counts = _row_counts(surely)
            worker.ahead_images[rows] += counts
            if not np.array_equal(counts, upper):
                settler.undecided(worker.ahead_images, maybe ^ surely, settler.texts, axis=1)

        maybe = worker.compare(0, tile, self.lowest[columns])
        upper = _column_counts(maybe)[: tile.shape[1]]
        if (upper * self.columns.texts_of_column[columns]).sum() <= _SPARSE_PAIRS_SHARE * tile.size:
            row, column = _places(maybe)
            which, texts = self.columns.texts_at(column + columns.start)
            settler.few(worker.ahead_texts, row[which], column[which], texts)
            return
        for layer_texts, layer in zip(self.columns.layer_texts, self.layers):
            part = slice(columns.start, min(columns.stop, len(layer_texts)))
            width = part.stop - part.start
            if width <= 0:
                break
            mark, texts = layer.take(part), layer_texts[part]
            maybe, surely = (
                worker.compare(0, tile[:, :width], mark.maybe),
                worker.compare(1, tile[:, :width], mark.surely),
            )
            counts = _column_counts(surely)[:width]
            worker.ahead_texts[texts] += counts
            if not np.array_equal(counts, _column_counts(maybe)[:width]):
                settler.undecided(worker.ahead_texts, maybe ^ surely, texts, axis=0)


def _row_counts(flags: Bools) -> Ints:
    """True values a row [b] of [b, w], w a multiple of 8. A byte of a word holds the count of at most 255 flags."""
    words = flags.view(np.uint64)
    sums = np.add.reduceat(words, np.arange(0, words.shape[1], 255), axis=1)
    return sums.view(np.uint8).sum(axis=1, dtype=np.int64)


def _column_counts(flags: NDArray[np.bool_]) -> Ints:
    """True values a column [w] of [b, w], b at most 255."""
    return np.add.reduce(flags.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64)


class _Settler:
    """Counts one by one in a tile, and decides in float64 what float32 leaves open there.

    A float64 tile, once made, serves all its thresholds. `texts` [b] and `images` [w] are the tile's rows and columns.
    """

    def __init__(self, count: CompetitorCount, tile: NDArray[np.float32], texts: Ints, images: Ints) -> None:
        self.positive, self.gallery = count.positive, count.gallery
        self.tile, self.texts, self.images = tile, texts, images
        self.scores: Doubles | None = None

    def few(self, ahead: Ints, row: Ints, column: Ints, marks: Ints) -> None:
        """Add 1 to `ahead[marks[i]]` for each place (row[i], column[i]) that reaches the positive score of its text."""
        scores = self.tile[row, column]
        surely = scores >= self.positive.surely[marks]
        np.add.at(ahead, marks[surely], 1)
        left = np.flatnonzero((scores >= self.positive.maybe[marks]) & ~surely)
        if len(left):
            self._exactly(ahead, row[left], column[left], marks[left])

    def undecided(self, ahead: Ints, flags: Bools, marks: Ints, axis: int) -> None:
        """Add to `ahead[marks]` how many flagged places [b, w] reach the marks.

        There is one mark a row (axis 1) or one a column (axis 0). w may fall short of the tile's width, or exceed it by
        columns of False.
        """
        if self.scores is None and np.count_nonzero(flags) > _DENSE_SHARE * flags.size:
            self.scores = self.gallery.score_matrix(self.texts, self.images)
        if self.scores is None:
            row, column = _places(flags)
            self._exactly(ahead, row, column, marks[(column, row)[axis]])
            return
        low = self.positive.exact[marks] - self.gallery.tie
        width = len(self.images) if axis else len(marks)
        reaching = self.scores[:, :width] >= (low[:, None] if axis else low)
        ahead[marks] += (reaching & flags[:, :width]).sum(axis=axis)

    def _exactly(self, ahead: Ints, row: Ints, column: Ints, marks: Ints) -> None:
        reaching = (
            self.gallery.scores(self.texts[row], self.images[column]) >= self.positive.exact[marks] - self.gallery.tie
        )
        np.add.at(ahead, marks[reaching], 1)


def _places(flags: Bools) -> tuple[Ints, Ints]:
    """Rows and columns of the few True values.

    Looks at eight at a time, which is several times faster than `nonzero`.
    """
    words = flags.view(np.uint64)
    word = np.flatnonzero(words.reshape(-1) != 0)
    which, byte = np.nonzero(flags.reshape(-1, 8)[word])
    row, column = np.divmod(word[which], words.shape[1])
    return row, column * 8 + byte
