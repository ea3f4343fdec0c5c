"""What an index is: the protocol that callers see, and the class that backends fill in.

Shape legend: N items, Q queries, E width, k results a query.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mt2st.errors import Mt2stError, unknown_name
from mt2st.vectors import plain_rows, unit_rows

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

# What a score is: the cosine, the inner product, or the L2 distance with its sign turned, so that larger is better.
METRICS = ("cosine", "dot", "euclidean")
# What a backend can be swept along: how much search looks at, how a number is stored, how many numbers a vector has.
SWEEPS = ("effort", "precision", "dimension")
_SPARE = 1.5  # asked for beyond k / share allowed, where a backend cannot filter


@runtime_checkable
class SearchIndex(Protocol):
    """Search over one gallery, by cosine unless it was made with another metric. A class of yours inherits nothing."""

    @property
    def backend(self) -> str:
        """The name that `create_index` knows it by."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What it was made with, defaults filled in: `create_index(index.backend, **index.parameters)` makes one."""

    @property
    def index_bytes(self) -> int:
        """Size of the index: its vectors or codes, its graph or lists."""

    def __len__(self) -> int:
        """N, the number of items."""

    def add(self, embeddings: Any) -> None:
        """Append items [N, E]; ids count on from the last. The caller's array is not written to, nor kept."""

    def search(self, queries: Any, k: int) -> tuple[Floats, Ints]:
        """Scores [Q, k] (see `METRICS`, best first) and ids [Q, k]; id −1, score −∞ where there is no k-th item."""


class VectorIndex(ABC):
    """The part all backends share: checks, normalisation, padding, filters, removal.

    Backends see float32 rows, of unit length where the metric is the cosine, and 1 ≤ k ≤ N only.

    A backend is a file with a class `Index` of this kind; the keyword arguments of its constructor are its parameters,
    kept under their names. It is final: to change its behaviour, wrap it.

    Attributes:
        backend: the name that `create_index` knows it by.
        example: the rest of a valid spec, for error messages.
        search_knobs: parameters that can be changed after building → the largest value.
        requires: the module that must be installed, "" for none.
        on_gpu: whether it needs a GPU.
        filters: whether `_search` heeds `allowed`; without, more is asked for than needed, and the rest is dropped.
        removes: whether the backend forgets removed items itself, in its file too.
        metric: "cosine", "dot" (inner product) or "euclidean" (L2).
    """

    backend: str
    example: ClassVar[str] = ""
    search_knobs: ClassVar[Mapping[str, int]] = {}
    requires: ClassVar[str] = ""
    on_gpu: ClassVar[bool] = False
    filters: ClassVar[bool] = True
    removes: ClassVar[bool] = False

    def __init__(self, metric: str = "cosine") -> None:
        if metric not in METRICS:
            raise unknown_name(f"metric of index {self.backend!r}", metric, METRICS)
        self.metric = metric
        self.width: int | None = None
        self._count = 0  # ids given out
        self._removed: Flags | None = None  # [ids given out], where some were removed

    @classmethod
    def sweep(cls, num_items: int, width: int, along: str = "effort") -> list[str]:
        """What a benchmark tries of this backend for N items of width E, along one of `SWEEPS`.

        Each is a spec without the backend's name, in which one search-time knob may list values: `:Flat`,
        `?ef_search=16,64`. `dimensions=32` has the benchmark index the first 32 components alone.
        """
        return [""] if along == "effort" else []

    @classmethod
    @final
    def create(cls, **parameters: Any) -> VectorIndex:
        """The index, or an error that names the parameters it knows."""
        known = inspect.signature(cls).parameters
        for name in parameters:
            if name not in known:
                raise unknown_name(f"parameter of index {cls.backend!r}", name, known)
        missing = [
            name for name, parameter in known.items() if parameter.default is parameter.empty and name not in parameters
        ]
        if missing:
            raise Mt2stError(f"index {cls.backend!r} needs {missing[0]}; for example {cls.backend}{cls.example}")
        return cls(**parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """Constructor arguments that make its like."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    @abstractmethod
    def index_bytes(self) -> int:
        """Size in bytes; 0 while empty."""

    @abstractmethod
    def _add(self, rows: Floats) -> None:
        """Append unit rows [n, E], n ≥ 1; the array may be kept. Trains first, where there is something to train."""

    @abstractmethod
    def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        """Best k of queries [q, E], q ≥ 1, 1 ≤ k ≤ N, among the items that `allowed` [ids given out] marks.

        Fewer found: id −1. `allowed` is None where all items are, and always where `filters` is false.
        """

    def _remove(self, ids: Ints) -> None:  # noqa: B027  # most backends cannot
        """Take out items, distinct and there; only where `removes`, otherwise they are filtered out of each search."""

    @final
    def set_search_knobs(self, **knobs: int | None) -> None:
        """Change what search looks at, without building again; None leaves a knob as it is.

        Raises:
            Mt2stError: the backend has no such knob, or the value is out of range.
        """
        for name, value in knobs.items():
            if name not in self.search_knobs:
                raise unknown_name(f"search-time knob of index {self.backend!r}", name, self.search_knobs)
            check_knobs(self.backend, {name: value}, high=self.search_knobs[name])
        given = {name: value for name, value in knobs.items() if value is not None}
        self._use_knobs(given)
        vars(self).update(given)

    def _use_knobs(self, knobs: Mapping[str, int | None]) -> None:  # noqa: B027  # most backends have nothing to do
        """Pass changed search-time knobs on to what was built; for backends that read their attributes: nothing."""

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write the content to the file `path`, in a form that needs no pickle."""

    @abstractmethod
    def read(self, path: Path) -> None:
        """Take the content of `path`, which `write` made; count and width are set already."""

    @final
    def __len__(self) -> int:
        return self._count - (0 if self._removed is None else int(self._removed.sum()))

    @property
    @final
    def ids_given(self) -> int:
        """How many ids were given out; the next item gets this one. Larger than the length where some were removed."""
        return self._count

    @property
    @final
    def removed(self) -> Ints:
        """Ids of removed items, ascending."""
        return np.flatnonzero(self._removed) if self._removed is not None else np.empty(0, np.int64)

    @final
    def add(self, embeddings: Any) -> None:
        """Append items [n, E]; see `SearchIndex.add`.

        Raises:
            Mt2stError: not a matrix, NaN, infinite or zero vectors (which inner product and L2 take), another width
                than before, too few items to train on.
        """
        rows = (unit_rows if self.metric == "cosine" else plain_rows)("embeddings", embeddings, self.width)
        if not len(rows):
            return
        self._add(rows)
        self.width = rows.shape[1]
        self._count += len(rows)
        if self._removed is not None:
            self._removed = np.append(self._removed, np.zeros(len(rows), np.bool_))

    @final
    def remove(self, ids: Any) -> None:
        """Take out items by their ids; no other item's id changes, and none is given out again.

        Raises:
            Mt2stError: an id that is no item's, or twice the same; nothing is removed then.
        """
        gone = np.asarray(ids)
        if gone.ndim != 1 or (gone.size and gone.dtype.kind not in "iu"):
            raise Mt2stError(f"remove: ids have shape {gone.shape} and type {gone.dtype}; give a list of whole numbers")
        if not gone.size:
            return
        if gone.min() < 0 or gone.max() >= self._count:
            raise Mt2stError(
                f"remove: ids from {gone.min()} to {gone.max()}, but the {self.backend} index gave out {self._count}"
            )
        removed = np.zeros(self._count, np.bool_) if self._removed is None else self._removed.copy()
        ordered = np.sort(gone)
        twice = np.concatenate([ordered[1:][ordered[1:] == ordered[:-1]], gone[removed[gone]]])
        if len(twice):
            raise Mt2stError(f"remove: id {twice[0]} is given twice or was removed before; give each once")
        self._remove(gone.astype(np.int64))
        removed[gone] = True
        self._removed = removed

    @final
    def search(self, queries: Any, k: int, allowed: Any = None) -> tuple[Floats, Ints]:
        """Scores and ids [Q, k]; see `SearchIndex.search`. No queries give arrays of shape [0, k].

        Args:
            queries: [Q, E].
            k: results a query.
            allowed: bool [ids given out], the items to search among; None = all.

        Raises:
            Mt2stError: the index is empty, k < 1, queries are refused as embeddings would be, or `allowed` is no flag
                for each item.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise Mt2stError(f"search: k = {k!r} must be a whole number from 1")
        if self.width is None:
            raise Mt2stError(
                f"search: the {self.backend} index holds no items (and is untrained); call add(embeddings) first"
            )
        rows = (unit_rows if self.metric == "cosine" else plain_rows)("queries", queries, self.width, reuse=True)
        flags = self._flags(allowed)
        found = min(int(k), len(self) if flags is None else int(flags.sum()))
        if found == k and len(rows):
            scores, ids = self._filtered(rows, found, flags)
        else:
            scores, ids = np.full((len(rows), int(k)), -np.inf, np.float32), np.full((len(rows), int(k)), -1, np.int64)
            if len(rows) and found:
                scores[:, :found], ids[:, :found] = self._filtered(rows, found, flags)
        missing = ids < 0
        if missing.any():
            scores[missing] = -np.inf
        return scores, ids

    def _flags(self, allowed: Any) -> Flags | None:
        """The items to search among; None where the backend need not be told."""
        removed = None if self.removes else self._removed
        if allowed is None:
            return None if removed is None else ~removed
        flags = np.asarray(allowed)
        if flags.dtype != np.bool_ or flags.shape != (self._count,):
            raise Mt2stError(
                f"search: allowed has type {flags.dtype} and shape {flags.shape}; give a bool for each of the "
                f"{self._count} ids given out"
            )
        return flags if self._removed is None else flags & ~self._removed

    def _filtered(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        """What the backend finds; where it heeds no filter, enough for k allowed items, and the others dropped."""
        if allowed is None or self.filters:
            return self._search(rows, k, allowed)
        most = len(self) if self.removes else self._count
        depth = min(most, int(_SPARE * k * most / max(1, allowed.sum())) + 1)
        while True:
            scores, ids = self._search(rows, depth, None)
            kept = (ids >= 0) & allowed[ids]
            if depth == most or (kept.sum(axis=1) >= k).all():
                break
            depth = min(most, 2 * depth)
        order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(kept, order, axis=1)
        return (
            np.where(found, np.take_along_axis(scores, order, axis=1), -np.inf).astype(np.float32),
            np.where(found, np.take_along_axis(ids, order, axis=1), -1),
        )

    @final
    def restore(self, path: Path, count: int, width: int, removed: Sequence[int] = ()) -> None:
        """Fill this empty index from `path`, which `write` made.

        Args:
            path: the backend's file.
            count: ids given out.
            width: E.
            removed: ids of removed items.
        """
        self._count, self.width = count, width
        if removed:
            self._removed = np.zeros(count, np.bool_)
            self._removed[list(removed)] = True
        self.read(path)


def check_knobs(backend: str, knobs: Mapping[str, int | None], low: int = 1, high: int = 1 << 20) -> None:
    """Raise unless every given knob is a whole number in [low, high]; None = not set."""
    for name, value in knobs.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
            raise Mt2stError(f"index {backend!r}: {name} = {value!r} must be a whole number from {low} to {high}")
