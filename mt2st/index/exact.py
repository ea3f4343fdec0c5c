"""Exact search: a blocked product and a running top k, in memory that does not grow with queries × items.

On the CPU nothing is sorted that cannot win: a block of scores is compared with each query's k-th best so far, and the
few that pass are kept aside until there are enough to merge. The first threshold is the k-th largest of many group
maxima: k groups hold an item at least that good, so it never excludes a winner. The product itself is NumPy's, which
took 0.58 s where torch's took 0.67 s on the machine this was written on (25,000 × 5,000 × 512, two threads of an EPYC).

On a GPU, torch's own `topk` merges block after block, in full float32 (TF32 is kept out).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from mt2st.errors import Mt2stError
from mt2st.index._base import Flags, Floats, Ints, VectorIndex
from mt2st.index._topk import RunningTop, best_columns
from mt2st.processes import side_by_side
from mt2st.threads import product_threads, split_threads, usable_threads
from mt2st.vectors import as_matrix, row_norms, unit_rows, write_unit_rows

DEVICES = ("auto", "cpu", "cuda")
_BLOCK_QUERIES = 1024
_BLOCK_SCORES = 8 << 20  # 34 MB of float32 on the CPU, for each of at most four workers
_FEW_SCORES = 1 << 17  # up to this many, selecting at once is quicker than setting up anything
_GPU_BLOCK_SCORES = 1 << 28  # 1 GB
_FEW_ALLOWED = 0.25  # share of allowed items up to which only they are multiplied
_PIECES_PER_WORKER = 4  # so that a slow process holds up the others by little


class Index(VectorIndex):
    """Search with no approximation. On the CPU, of several equal scores the lowest ids come first and fill the places.

    The L2 distance is that of ‖q‖² − 2 (q·x − ‖x‖²/2), so its float32 rounding grows with the lengths, not with the
    distance; what must be exact to the last digit is computed anew from the ids.

    Args:
        device: "cpu", "cuda" (an error where there is none), or "auto", which takes CUDA if there is one; `parameters`
            says which.
        threads: threads of the product and of the comparison, on the CPU; 0 = as many as the process may use. While a
            search runs with fewer, so does every other matrix product of the process.
        metric: "cosine", "dot" or "euclidean".
    """

    backend = "exact"
    search_knobs: ClassVar[Mapping[str, int]] = {"threads": 4096}

    def __init__(self, device: str = "cpu", threads: int = 0, metric: str = "cosine") -> None:
        super().__init__(metric)
        if device not in DEVICES:
            raise Mt2stError(f"index 'exact': device = {device!r}; give one of {', '.join(DEVICES)}")
        if threads < 0:
            raise Mt2stError(f"index 'exact': threads = {threads} must be 0 (as many as allowed) or more")
        self.device = _resolved(device)  # never "auto"
        self.threads = threads
        self._parts: list[Floats] = []
        self._halves: list[Floats] = []  # half the squared lengths of the items, for L2 alone
        self._on_gpu: Any = None

    @classmethod
    def sweep(cls, num_items: int, width: int, along: str = "effort") -> list[str]:
        """One setting, on the GPU where there is one."""
        return ["?device=auto"] if along == "effort" else []

    @property
    def index_bytes(self) -> int:
        """The float32 vectors, and for L2 half their squared lengths."""
        return sum(part.nbytes for part in (*self._parts, *self._halves))

    def _add(self, rows: Floats) -> None:
        self._parts.append(rows)
        if self.metric == "euclidean":
            self._halves.append(half_squares(rows))
        self._on_gpu = None

    def _rows(self) -> Floats:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def _offsets(self) -> Floats | None:
        """What is taken off each item's product with a query; None = nothing."""
        if len(self._halves) > 1:
            self._halves = [np.concatenate(self._halves)]
        return self._halves[0] if self._halves else None

    def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        gallery, offsets, numbers = self._rows(), self._offsets(), None
        if allowed is not None and allowed.sum() <= _FEW_ALLOWED * len(allowed):
            numbers = np.flatnonzero(allowed)  # their copy costs less than the products of all the others
            gallery, offsets, allowed = gallery[numbers], None if offsets is None else offsets[numbers], None
        if self.device != "cpu":
            scores, ids = self._search_cuda(rows, k, gallery if numbers is not None else None, offsets, allowed)
        else:
            scores, ids = self._search_cpu(rows, k, gallery, offsets, allowed)
        if allowed is not None:
            ids[np.isneginf(scores)] = -1
        if numbers is not None:
            ids = numbers[ids]
        return (scores if offsets is None else minus_distances(rows, scores)), ids

    def _search_cpu(
        self, rows: Floats, k: int, gallery: Floats, offsets: Floats | None, allowed: Flags | None
    ) -> tuple[Floats, Ints]:
        scores, ids = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64)
        starts = range(0, len(rows), min(_BLOCK_QUERIES, len(rows)))
        workers, each = split_threads(self.threads or usable_threads(), len(starts))
        if workers == 1 and self.threads in (0, usable_threads()):  # nothing to limit, nothing to share out
            self._search_blocks(rows, gallery, starts, scores, ids, offsets, allowed)
            return scores, ids
        with product_threads(each), ThreadPoolExecutor(workers) as pool:
            for job in [
                pool.submit(self._search_blocks, rows, gallery, starts[place::workers], scores, ids, offsets, allowed)
                for place in range(workers)
            ]:
                job.result()
        return scores, ids

    @staticmethod
    def _search_blocks(
        rows: Floats,
        gallery: Floats,
        starts: range,
        scores: Floats,
        ids: Ints,
        offsets: Floats | None = None,
        allowed: Flags | None = None,
        width: int = 0,
    ) -> None:
        """Search the blocks of queries that begin at `starts`.

        Results go to their rows of `scores` and `ids` [Q, k]: products less `offsets` [N], −∞ where not `allowed` [N].
        `width` items are multiplied at once, 0 = as many as suit this gallery.
        """
        k = scores.shape[1]
        height = min(_BLOCK_QUERIES, len(rows))
        if not width and height * len(gallery) <= _FEW_SCORES:
            for start in starts:
                block = slice(start, start + height)
                products = rows[block] @ gallery.T
                _adjust(products, slice(None), offsets, allowed)
                scores[block], ids[block] = _best(products, k)
            return
        width = width or block_items(len(rows), len(gallery), k)
        buffer = np.empty((height, width), np.float32)
        for start in starts:
            queries = rows[start : start + height]
            top = RunningTop(len(queries), k)
            for first in range(0, len(gallery), width):
                items = gallery[first : first + width]
                block_scores = buffer[: len(queries), : len(items)]
                np.matmul(queries, items.T, out=block_scores)
                _adjust(block_scores, slice(first, first + width), offsets, allowed)
                top.offer(block_scores, first)
            scores[start : start + len(queries)], ids[start : start + len(queries)] = top.result()

    def _search_cuda(
        self, rows: Floats, k: int, some: Floats | None, offsets: Floats | None, allowed: Flags | None
    ) -> tuple[Floats, Ints]:
        """As `_search_cpu`; `some` items, or None for all of them, which stay on the GPU."""
        import torch

        if self._on_gpu is None:
            self._on_gpu = torch.from_numpy(self._rows()).to(self.device)
        gallery = self._on_gpu if some is None else torch.from_numpy(some).to(self.device)
        taken = None if offsets is None else torch.from_numpy(offsets).to(self.device)
        barred = None if allowed is None else torch.from_numpy(~allowed).to(self.device)
        height = min(len(rows), 8192)
        width = min(len(gallery), max(_GPU_BLOCK_SCORES // height, 2 * k))
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            found: list[tuple[Any, Any]] = []
            for queries in torch.from_numpy(np.ascontiguousarray(rows)).split(height):
                queries = queries.to(self.device)
                best: Any = None
                ids: Any = None
                for first in range(0, len(gallery), width):
                    block = queries @ gallery[first : first + width].T
                    if taken is not None:
                        block -= taken[first : first + width]
                    if barred is not None:
                        block.masked_fill_(barred[first : first + width], -torch.inf)
                    score, place = block.topk(min(k, block.shape[1]), dim=1)
                    place += first
                    if best is not None:
                        score, place = torch.cat([best, score], 1), torch.cat([ids, place], 1)
                        score, order = score.topk(min(k, score.shape[1]), dim=1)
                        place = place.gather(1, order)
                    best, ids = score, place
                found.append((best.cpu(), ids.cpu()))
        finally:
            torch.set_float32_matmul_precision(precision)
        return torch.cat([score for score, _ in found]).numpy(), torch.cat([place for _, place in found]).numpy()

    def write(self, path: Path) -> None:
        """The vectors as a safetensors file."""
        from safetensors.numpy import save

        path.write_bytes(save({"embeddings": self._rows()}))

    def read(self, path: Path) -> None:
        """The vectors of a safetensors file."""
        from safetensors.numpy import load

        self._parts = [load(path.read_bytes())["embeddings"]]
        self._halves = [half_squares(self._parts[0])] if self.metric == "euclidean" else []


def search_over_processes(
    gallery: Any, queries: Any, k: int, *, workers: int, scratch: Path | None = None
) -> tuple[Floats, Ints]:
    """Scores and ids [Q, k] of an `Index(threads=1)` that holds `gallery`, to the same bits for any number of workers.

    The queries are cut at the blocks that one process takes, and every process multiplies with one thread. All of them
    map the same files, so the gallery is in memory once.

    Args:
        gallery: [N, E], an array or the path of an `.npy` file.
        queries: [Q, E], likewise.
        k: results a query.
        workers: processes; 1 = this one.
        scratch: folder for normalised copies of both while it runs, (N + Q) × E × 4 bytes; None = the system's.

    Raises:
        Mt2stError: as `Index.add` and `Index.search`, or a worker ended without a word.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise Mt2stError(f"search: k = {k!r} must be a whole number from 1")
    items = as_matrix("gallery", gallery)
    asked = as_matrix("queries", queries, items.shape[1])
    if not len(items):
        raise Mt2stError("search: the gallery holds no items; give at least one embedding")
    found = min(int(k), len(items))
    scores, ids = np.full((len(asked), int(k)), -np.inf, np.float32), np.full((len(asked), int(k)), -1, np.int64)
    with TemporaryDirectory(prefix=".mt2st-search-", dir=scratch) as place:
        folder = Path(place)
        write_unit_rows(folder / "gallery.npy", items, row_norms("gallery", items))
        np.save(folder / "queries.npy", unit_rows("queries", asked, reuse=True))
        pieces = [_Piece(folder, start, stop, found) for start, stop in _cuts(len(asked), workers)]
        for piece, (some_scores, some_ids) in side_by_side(_search_piece, pieces, workers):
            scores[piece.start : piece.stop, :found] = some_scores
            ids[piece.start : piece.stop, :found] = some_ids
    return scores, ids


@dataclass(frozen=True)
class _Piece:
    """The queries from `start` to `stop`, of which the `k` best are wanted, in the files of `folder`."""

    folder: Path
    start: int
    stop: int
    k: int


def _cuts(queries: int, workers: int) -> list[tuple[int, int]]:
    """Whole blocks of queries, a few pieces a worker; the rest of a block goes to the last piece."""
    blocks = queries // _BLOCK_QUERIES
    if blocks <= 1:
        return [(0, queries)] if queries else []
    each = _BLOCK_QUERIES * -(-blocks // (_PIECES_PER_WORKER * workers))
    starts = list(range(0, blocks * _BLOCK_QUERIES, each))
    return list(zip(starts, [*starts[1:], queries], strict=True))


def _search_piece(piece: _Piece) -> tuple[Floats, Ints]:
    rows = np.load(piece.folder / "queries.npy", mmap_mode="r")[piece.start : piece.stop]
    gallery = np.load(piece.folder / "gallery.npy", mmap_mode="r")
    scores, ids = np.empty((len(rows), piece.k), np.float32), np.empty((len(rows), piece.k), np.int64)
    starts = range(0, len(rows), min(_BLOCK_QUERIES, len(rows)))
    with product_threads(1):
        Index._search_blocks(np.asarray(rows), np.asarray(gallery), starts, scores, ids)
    return scores, ids


def block_items(queries: int, items: int, k: int) -> int:
    """Items that are multiplied at once with each block of queries; what the bits of a product depend on."""
    return min(items, max(_BLOCK_SCORES // max(1, min(_BLOCK_QUERIES, queries)), 2 * k))


def half_squares(rows: Floats) -> Floats:
    """Half the squared lengths [N] of rows [N, E], summed in float64; the same for equal rows, wherever they are."""
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK_QUERIES):
        block = rows[start : start + _BLOCK_QUERIES].astype(np.float64)
        found[start : start + len(block)] = (block * block).sum(axis=1) / 2
    return found


def minus_distances(rows: Floats, scores: Floats) -> Floats:
    """L2 distances with their sign turned [q, k], from q·x − ‖x‖²/2 of queries [q, E]; −∞ stays."""
    squares = 2 * (half_squares(rows)[:, None].astype(np.float64) - scores)
    return -np.sqrt(np.maximum(squares, 0)).astype(np.float32)


def _adjust(block: Floats, items: slice, offsets: Floats | None, allowed: Flags | None) -> None:
    """Products [b, w] of these items, made into scores in place."""
    if offsets is not None:
        block -= offsets[items]
    if allowed is not None:
        block[:, ~allowed[items]] = -np.inf


def search_part(gallery: Floats, rows: Floats, k: int, metric: str, width: int) -> tuple[Floats, Ints]:
    """Scores and ids [Q, k] of prepared queries among a part of a prepared gallery, in this thread.

    `width` items are multiplied at once, as in the whole that this is part of (`block_items`); so bits are the same.
    """
    offsets = half_squares(gallery) if metric == "euclidean" else None
    scores, ids = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64)
    starts = range(0, len(rows), min(_BLOCK_QUERIES, len(rows)))
    Index._search_blocks(rows, gallery, starts, scores, ids, offsets, None, width)
    return (scores if offsets is None else minus_distances(rows, scores)), ids


def _best(scores: Floats, k: int) -> tuple[Floats, Ints]:
    """The k best of each row, by selection."""
    ids = best_columns(scores, k)
    found = np.take_along_axis(scores, ids, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(ids, order, axis=1).astype(np.int64)


def _resolved(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "auto":
        return "cpu"
    raise Mt2stError(
        "index 'exact': device = 'cuda', but torch finds no CUDA device; use device=cpu, or device=auto to take what "
        "is there"
    )
