"""The running top k of a stream of score blocks, without sorting what cannot win.

Shape legend: b queries × w items a block; k results a query.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_GROUPS_PER_RESULT = 16  # group maxima a result: with 16 k groups, about 1.03 k items pass the first threshold
TILE_QUERIES = 32  # whole rows: reading a block in narrower tiles took four times as long
_FULL = 6  # more than this many candidates a result: selecting is cheaper than sorting them


class RunningTop:
    """The k best of everything offered so far, for b queries; of several equal scores those with the lowest ids.

    Args:
        queries: b.
        k: results a query.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.scores: Floats = np.empty((queries, 0), np.float32)
        self.ids: Ints = np.empty((queries, 0), np.int64)
        self.aside: list[tuple[Ints, Ints, Floats]] = []  # rows, ids and scores that passed since the last merge
        self.size_aside = 0

    def offer(self, block: Floats, first_id: int) -> None:
        """Take in scores [b, w] of the items first_id, first_id + 1, …; ids must come in ascending order."""
        queries = len(block)
        if self.scores.shape[1] < self.k:
            threshold, strict = self._group_threshold(block), False
        else:
            threshold, strict = self.scores[:, -1], True  # a later item with an equal score loses, its id being higher
        if threshold is None:
            self._select(block, first_id)
            return
        passed = self._passing(block, threshold, strict)
        count = sum(len(rows) for rows, _ in passed)
        if count > _FULL * self.k * queries:
            self._select(block, first_id)
            return
        for rows, columns in passed:
            self.aside.append((rows, columns + first_id, block[rows, columns]))
        self.size_aside += count
        if self.scores.shape[1] < self.k or self.size_aside >= self.k * queries:
            self._merge()

    def result(self) -> tuple[Floats, Ints]:
        """Scores and ids [b, min(k, items offered)], best first."""
        self._merge()
        return self.scores, self.ids

    def _group_threshold(self, block: Floats) -> Floats | None:
        """A score [b] that at least k items of the block reach; None where the block is too narrow for groups."""
        width = block.shape[1]
        groups = _GROUPS_PER_RESULT * self.k
        if width < 4 * groups:
            return None
        usable = width // groups * groups
        maxima = block[:, :groups].copy()
        for start in range(groups, usable, groups):
            np.maximum(maxima, block[:, start : start + groups], out=maxima)
        return np.partition(maxima, groups - self.k, axis=1)[:, groups - self.k]

    def _passing(self, block: Floats, threshold: Floats, strict: bool) -> list[tuple[Ints, Ints]]:
        """Rows and columns of the scores above (or at) their query's threshold."""
        compare = np.greater if strict else np.greater_equal
        queries, width = block.shape
        found = []
        for start in range(0, queries, TILE_QUERIES):
            tile, mark = block[start : start + TILE_QUERIES], threshold[start : start + TILE_QUERIES]
            rows = np.flatnonzero(compare(tile.max(axis=1), mark))
            if not len(rows):
                continue
            if 2 * len(rows) < len(tile):
                tile, mark = tile[rows], mark[rows]
            else:
                rows = np.arange(len(tile))
            flags = np.zeros((len(tile), -(-width // 8) * 8), np.bool_)
            compare(tile, mark[:, None], out=flags[:, :width])
            word = np.flatnonzero(flags.view(np.uint64).reshape(-1) != 0)  # eight flags a word
            which, byte = np.nonzero(flags.reshape(-1, 8)[word])
            row, word_of_row = np.divmod(word[which], flags.shape[1] // 8)
            found.append((rows[row] + start, word_of_row * 8 + byte))
        return found

    def _select(self, block: Floats, first_id: int) -> None:
        """The block's own k best, by partition: for narrow blocks and for blocks full of equal scores."""
        width = block.shape[1]
        count = min(self.k, width)
        columns = best_columns(block, count)
        rows = np.repeat(np.arange(len(block)), count)
        self.aside.append(
            (rows, columns.reshape(-1) + first_id, np.take_along_axis(block, columns, axis=1).reshape(-1))
        )
        self._merge()

    def _merge(self) -> None:
        if not self.aside:
            return
        queries, held = self.scores.shape
        rows = np.concatenate([np.repeat(np.arange(queries), held), *(rows for rows, _, _ in self.aside)])
        ids = np.concatenate([self.ids.reshape(-1), *(ids for _, ids, _ in self.aside)])
        scores = np.concatenate([self.scores.reshape(-1), *(scores for _, _, scores in self.aside)])
        order = _order(rows, scores)
        count = np.bincount(rows, minlength=queries)
        kept = min(self.k, int(count.min()))
        first = np.cumsum(count) - count
        chosen = order[first[:, None] + np.arange(kept)]  # [b, kept]
        self.scores, self.ids = scores[chosen], ids[chosen]
        self.aside, self.size_aside = [], 0


def best_columns(block: Floats, count: int) -> Ints:
    """Columns [b, count] of each row's best scores, ascending; of several equal scores the first ones."""
    width = block.shape[1]
    if count == width:
        return np.tile(np.arange(width), (len(block), 1))
    columns = np.argpartition(block, width - count, axis=1)[:, width - count :]
    taken = np.take_along_axis(block, columns, axis=1)
    last = taken.min(axis=1, keepdims=True)
    tied = np.flatnonzero((block == last).sum(axis=1) > (taken == last).sum(axis=1))  # partition took any of them
    if len(tied):
        some, mark = block[tied], last[tied]
        above, equal = some > mark, some == mark
        room = count - above.sum(axis=1, keepdims=True)
        columns[tied] = np.nonzero(above | (equal & (equal.cumsum(axis=1) <= room)))[1].reshape(len(tied), count)
    columns.sort(axis=1)
    return columns


def ordered(scores: Floats, ids: Ints, k: int) -> tuple[Floats, Ints]:
    """The first k of each row [q, n], best score first, of equal scores the lowest id; id −1 is last."""
    keys = np.where(ids >= 0, ids, np.iinfo(np.int64).max)
    order = np.lexsort((keys, np.where(ids >= 0, -scores, np.inf)))[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _order(rows: Ints, scores: Floats) -> Ints:
    """Places in the order of rows, best score first, equal scores as they came.

    One sort of 64-bit keys (11 bits of row, 32 of score, 21 of place) where they fit, which is several times faster
    than sorting by three arrays.
    """
    if len(rows) >= 1 << 21 or rows.max(initial=0) >= 1 << 11:
        return np.lexsort((-scores, rows))
    bits = (scores + np.float32(0)).view(np.uint32)  # −0 becomes 0
    descending = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))  # unsigned order of the bits, turned round
    keys = (rows.astype(np.uint64) << 53) | (descending.astype(np.uint64) << 21) | np.arange(len(rows), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64((1 << 21) - 1)).astype(np.int64)
