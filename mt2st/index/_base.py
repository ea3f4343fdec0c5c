"""What an index is: the protocol that callers see, and the class that backends fill in.

Shape legend: N items, Q queries, E width, k results a query.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mt2st.errors import Mt2stError, unknown_name
from mt2st.vectors import unit_rows

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@runtime_checkable
class SearchIndex(Protocol):
    """Cosine search over one gallery. A class of yours inherits nothing."""

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
        """Scores [Q, k] (cosine, best first) and ids [Q, k]; id −1 and score −∞ where there is no k-th item."""


class VectorIndex(ABC):
    """The part all backends share: checks, normalisation, padding. Backends see unit float32 rows and 1 ≤ k ≤ N only.

    A backend is a file with a class `Index` of this kind; the keyword arguments of its constructor are its parameters,
    kept under their names. It is final: to change its behaviour, wrap it.

    Attributes:
        backend: the name that `create_index` knows it by.
        example: the rest of a valid spec, for error messages.
        search_knobs: parameters that can be changed after building → the largest value.
    """

    backend: str
    example: ClassVar[str] = ""
    search_knobs: ClassVar[Mapping[str, int]] = {}

    def __init__(self) -> None:
        self.width: int | None = None
        self._count = 0

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
    def _search(self, rows: Floats, k: int) -> tuple[Floats, Ints]:
        """Best k of unit queries [q, E], q ≥ 1, 1 ≤ k ≤ N; fewer found: id −1."""

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
        return self._count

    @final
    def add(self, embeddings: Any) -> None:
        """Append items [n, E]; see `SearchIndex.add`.

        Raises:
            Mt2stError: not a matrix, NaN, infinite or zero vectors, another width than before, too few items to train
                on.
        """
        rows = unit_rows("embeddings", embeddings, self.width)
        if not len(rows):
            return
        self._add(rows)
        self.width = rows.shape[1]
        self._count += len(rows)

    @final
    def search(self, queries: Any, k: int) -> tuple[Floats, Ints]:
        """Scores and ids [Q, k]; see `SearchIndex.search`. No queries give arrays of shape [0, k].

        Raises:
            Mt2stError: the index is empty, k < 1, or queries are refused as embeddings would be.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise Mt2stError(f"search: k = {k!r} must be a whole number from 1")
        if self.width is None:
            raise Mt2stError(
                f"search: the {self.backend} index holds no items (and is untrained); call add(embeddings) first"
            )
        rows = unit_rows("queries", queries, self.width, reuse=True)
        found = min(int(k), self._count)
        if found == k and len(rows):
            scores, ids = self._search(rows, found)
        else:
            scores, ids = np.full((len(rows), int(k)), -np.inf, np.float32), np.full((len(rows), int(k)), -1, np.int64)
            if len(rows):
                scores[:, :found], ids[:, :found] = self._search(rows, found)
        missing = ids < 0
        if missing.any():
            scores[missing] = -np.inf
        return scores, ids

    @final
    def restore(self, path: Path, count: int, width: int) -> None:
        """Fill this empty index from `path`, which `write` made of `count` items `width` wide."""
        self._count, self.width = count, width
        self.read(path)


def check_knobs(backend: str, knobs: Mapping[str, int | None], low: int = 1, high: int = 1 << 20) -> None:
    """Raise unless every given knob is a whole number in [low, high]; None = not set."""
    for name, value in knobs.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
            raise Mt2stError(f"index {backend!r}: {name} = {value!r} must be a whole number from {low} to {high}")
