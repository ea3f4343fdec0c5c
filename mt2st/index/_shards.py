"""Search over a gallery that is cut into shards, each searched by a process, here or on the nodes of a Ray cluster.

    scores, ids = search_shards(Path("gallery.npy"), Path("queries.npy"), k=10, shards=8, workers=4)

Nothing is held whole: gallery and queries are mapped, results go to files block by block, and the merge reads them so.
Scores and ids are those of one index with one thread, bit for bit, ties included (of equal scores the lowest ids),
because shards and blocks of queries are cut where one index cuts its products. A FAISS index is trained once, and every
shard holds its items under the same centroids; graphs (HNSW) differ from one large graph, and find a little more.

A shard whose process dies is asked again, a few times; then the error names it. None is ever left out.

Shape legend: N items, Q queries, E width, k results a query.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mt2st.errors import Mt2stError, unknown_name
from mt2st.index._base import Floats, Ints, VectorIndex
from mt2st.index._topk import ordered
from mt2st.processes import WorkerDiedError, side_by_side
from mt2st.vectors import as_matrix, plain_rows, row_norms, write_npy_header, write_unit_rows

ENGINES = ("processes", "ray")
ATTEMPTS = 3
_BACKENDS = ("exact", "faiss_cpu")
_QUERIES_A_PIECE = 1 << 16  # a multiple of the 4,096 queries that FAISS multiplies at once, and of exact's 1,024
_FAISS_ITEMS = 4096  # a multiple of the items that FAISS multiplies at once, when searched and when assigned to lists
_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class _Piece:
    """Queries `first` to `last` among the items `start` to `stop` of the files in `folder`."""

    folder: str
    shard: int
    start: int
    stop: int
    first: int
    last: int
    k: int
    spec: str
    block: int

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"found-{self.shard}-{self.first}.npz"


def search_shards(
    gallery: Any,
    queries: Any,
    k: int,
    *,
    shards: int,
    spec: str = "exact",
    workers: int = 1,
    engine: str = "processes",
    scratch: Path | None = None,
) -> tuple[Floats, Ints]:
    """Scores and ids [Q, k] of one index that holds `gallery`, made of `shards` parts.

    Args:
        gallery: [N, E], an array or the path of an `.npy` file.
        queries: [Q, E], likewise.
        k: results a query.
        shards: parts of the gallery; fewer are made where N is too small to cut without changing a bit.
        spec: "exact", or "faiss_cpu:…" with its parameters; each with `metric=…` too.
        workers: processes, of one thread each; 1 = this one. With Ray, tasks at once.
        engine: "processes" of this machine, or "ray", whose nodes must see `scratch` under the same path.
        scratch: folder for prepared copies, (N + Q) × E × 4 bytes, and for results; None = the system's.

    Raises:
        Mt2stError: as `VectorIndex.add` and `search`; an unknown backend or engine; a shard whose process died each
            time, by its number and its rows.
    """
    from mt2st.index import create_index, parse_spec

    if engine not in ENGINES:
        raise unknown_name("engine of a sharded search", engine, ENGINES)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise Mt2stError(f"search: k = {k!r} must be a whole number from 1")
    if shards < 1 or workers < 1:
        raise Mt2stError(f"sharded search: shards = {shards} and workers = {workers} must be at least 1")
    backend, given = parse_spec(spec)
    if backend not in _BACKENDS:
        raise unknown_name("backend of a sharded search", backend, _BACKENDS)
    given = {**given, "threads": 1, **({"ties": "lowest"} if backend == "faiss_cpu" else {"device": "cpu"})}
    probe = create_index(backend, **given)
    items = as_matrix("gallery", gallery)
    asked = as_matrix("queries", queries, items.shape[1])
    if not len(items):
        raise Mt2stError("search: the gallery holds no items; give at least one embedding")
    found = min(int(k), len(items))
    scores, ids = np.full((len(asked), int(k)), -np.inf, np.float32), np.full((len(asked), int(k)), -1, np.int64)
    if not len(asked):
        return scores, ids
    with TemporaryDirectory(prefix=".mt2st-shards-", dir=scratch) as place:
        folder = Path(place)
        for name, matrix in (("gallery", items), ("queries", asked)):
            _write_rows(folder / f"{name}.npy", name, matrix, probe.metric)
        if backend == "faiss_cpu":
            _train(probe, folder)
        pieces = list(_pieces(folder, probe, len(items), len(asked), found, shards))
        _ask_all(pieces, workers, engine)
        _merge(pieces, scores[:, :found], ids[:, :found])
    return scores, ids


def _write_rows(path: Path, name: str, matrix: Any, metric: str) -> None:
    """The rows as indexes see them, written in blocks."""
    if metric == "cosine":
        write_unit_rows(path, matrix, row_norms(name, matrix))
        return
    with path.open("wb") as stream:
        write_npy_header(stream, np.dtype(np.float32), matrix.shape)
        for start in range(0, len(matrix), _ROWS_AT_ONCE):
            stream.write(plain_rows(name, matrix[start : start + _ROWS_AT_ONCE]).tobytes())


def _train(index: Any, folder: Path) -> None:
    """Train one index on the whole gallery, and keep it, empty, for the shards."""
    rows = np.load(folder / "gallery.npy", mmap_mode="r")
    index.train(np.asarray(rows))
    index.write(folder / "trained")


def _pieces(folder: Path, probe: VectorIndex, items: int, queries: int, k: int, shards: int) -> Iterator[_Piece]:
    """Shards cut at whole blocks of items, and queries at whole blocks; the rest goes to the last of each."""
    from mt2st.index.exact import block_items

    block = block_items(queries, items, k) if probe.backend == "exact" else _FAISS_ITEMS
    blocks = max(1, items // block)
    each = block * -(-blocks // min(shards, blocks))
    starts = [start for start in range(0, items, each) if start == 0 or items - start >= block]
    firsts = [first for first in range(0, queries, _QUERIES_A_PIECE) if first == 0 or queries - first >= _FAISS_ITEMS]
    # Rows are of unit length by now; a shard that normalised them again would round them again.
    given = probe.parameters | ({"metric": "dot"} if probe.metric == "cosine" else {})
    spec = "&".join(f"{key}={value}" for key, value in given.items() if value is not None)
    for shard, (start, stop) in enumerate(zip(starts, [*starts[1:], items], strict=True)):
        for first, last in zip(firsts, [*firsts[1:], queries], strict=True):
            parts = (shard, start, stop, first, last)
            yield _Piece(str(folder), *parts, k, f"{probe.backend}?{spec}", block)


def _ask_all(pieces: Sequence[_Piece], workers: int, engine: str) -> None:
    """Have every piece searched; those whose process died are asked again.

    Raises:
        Mt2stError: some died each time.
    """
    left = list(pieces)
    why = ""
    for _ in range(ATTEMPTS):
        done: set[_Piece] = set()
        try:
            for piece in (_over_ray if engine == "ray" else _over_processes)(left, workers):
                done.add(piece)
        except WorkerDiedError as error:
            why = str(error)
        left = [piece for piece in left if piece not in done]
        if not left:
            return
    dead = sorted({(piece.shard, piece.start, piece.stop) for piece in left})
    names = ", ".join(f"{shard} (items {start} to {stop - 1})" for shard, start, stop in dead[:8])
    more = f" and {len(dead) - 8} others" if len(dead) > 8 else ""
    raise Mt2stError(
        f"sharded search: no answer from shard {names}{more} after {ATTEMPTS} attempts ({why[:200]}); nothing was left "
        "out in silence: give more memory, more shards or fewer workers"
    )


def _over_processes(pieces: Sequence[_Piece], workers: int) -> Iterator[_Piece]:
    for piece, _ in side_by_side(_search, pieces, workers):
        yield piece


def _over_ray(pieces: Sequence[_Piece], workers: int) -> Iterator[_Piece]:
    """As tasks of a Ray cluster, the one of RAY_ADDRESS or one of this machine; `workers` at once."""
    try:
        import ray
    except ImportError:
        raise Mt2stError("engine 'ray' needs Ray; install it with pip install 'mt2st[ray]'") from None
    started = not ray.is_initialized()
    if started:
        paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
        ray.init(
            num_cpus=None if os.environ.get("RAY_ADDRESS") else workers,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
        )
    try:
        task = ray.remote(num_cpus=1, max_retries=0)(_search)
        waiting = list(pieces)
        running: dict[Any, _Piece] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                piece = waiting.pop(0)
                running[task.remote(piece)] = piece
            (ready,), _ = ray.wait(list(running), num_returns=1)
            piece = running.pop(ready)
            try:
                ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except ray.exceptions.RayError as error:
                raise WorkerDiedError(f"a task of Ray died: {str(error).splitlines()[0][:200]}") from None
            yield piece
    finally:
        if started:
            with suppress(ray.exceptions.RayError):
                ray.shutdown()


def _search(piece: _Piece) -> None:
    """Search one shard with some queries; the results are a file of the folder, whole or not there."""
    from mt2st.threads import product_threads

    rows = np.load(Path(piece.folder) / "queries.npy", mmap_mode="r")[piece.first : piece.last]
    search = _exact if piece.spec.startswith("exact") else _faiss
    with product_threads(1):
        scores, ids = search(piece, np.asarray(rows))
    partial = piece.path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.savez(stream, scores=scores, ids=np.where(ids >= 0, ids + piece.start, -1))
    partial.replace(piece.path)


def _exact(piece: _Piece, rows: Floats) -> tuple[Floats, Ints]:
    from mt2st.index.exact import search_part

    metric = piece.spec.partition("metric=")[2].partition("&")[0]
    part = np.load(Path(piece.folder) / "gallery.npy", mmap_mode="r")[piece.start : piece.stop]
    return search_part(np.asarray(part), rows, min(piece.k, len(part)), metric, piece.block)


def _faiss(piece: _Piece, rows: Floats) -> tuple[Floats, Ints]:
    index = _faiss_shard(piece.folder, piece.start, piece.stop, piece.spec)
    return index.search(rows, min(piece.k, len(index)))


@lru_cache(maxsize=1)
def _faiss_shard(folder: str, start: int, stop: int, spec: str) -> VectorIndex:
    """The trained index with the items of a shard; kept for the next queries of the same."""
    from mt2st.index import create_index

    index = create_index(spec)
    rows = np.asarray(np.load(Path(folder) / "gallery.npy", mmap_mode="r")[start:stop])
    index.restore(Path(folder) / "trained", 0, rows.shape[1])
    index.add(rows)
    return index


def _merge(pieces: Sequence[_Piece], scores: Floats, ids: Ints) -> None:
    """The k best of all shards, into `scores` and `ids` [Q, k], piece after piece."""
    for piece in pieces:
        rows = slice(piece.first, piece.last)
        with np.load(piece.path, allow_pickle=False) as found:
            both = (np.concatenate([scores[rows], found["scores"]], 1), np.concatenate([ids[rows], found["ids"]], 1))
        scores[rows], ids[rows] = ordered(*both, scores.shape[1])
        piece.path.unlink()
