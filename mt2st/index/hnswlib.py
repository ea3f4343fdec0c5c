"""HNSW by hnswlib (optional extra `index`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mt2st.errors import Mt2stError
from mt2st.index._base import Flags, Floats, Ints, VectorIndex, check_knobs


class Index(VectorIndex):
    """A graph.

    Args:
        links: links an item (M): more = better, larger, slower to build.
        ef_construction: candidates kept while building.
        ef_search: candidates kept while searching; raised to k where k is larger.
        threads: 0 = hnswlib's own choice, all processors.
        seed: of the graph's levels; the graph is reproducible with one thread only.
        metric: "cosine", "dot" or "euclidean".

    A filter is a Python function that hnswlib calls for every item it looks at, so a filtered search is slow.
    """

    backend = "hnswlib"
    search_knobs: ClassVar[Mapping[str, int]] = {"ef_search": 1 << 20, "threads": 4096}
    requires = "hnswlib"
    removes = True

    def __init__(
        self,
        links: int = 16,
        ef_construction: int = 200,
        ef_search: int = 64,
        threads: int = 0,
        seed: int = 1234,
        metric: str = "cosine",
    ) -> None:
        super().__init__(metric)
        check_knobs(self.backend, {"links": links}, low=2, high=512)
        check_knobs(self.backend, {"ef_construction": ef_construction, "ef_search": ef_search})
        check_knobs(self.backend, {"threads": threads, "seed": seed}, low=0)
        if find_spec("hnswlib") is None:
            raise Mt2stError("index 'hnswlib' needs the package hnswlib; install it with pip install 'mt2st[index]'")
        self.links, self.ef_construction, self.ef_search = links, ef_construction, ef_search
        self.threads, self.seed = threads, seed
        self._graph: Any = None

    @classmethod
    def sweep(cls, num_items: int, width: int, along: str = "effort") -> list[str]:
        """One graph, searched with more and more effort."""
        return ["?ef_search=16,32,64,128,256"] if along == "effort" else []

    @property
    def index_bytes(self) -> int:
        """Length of hnswlib's own file."""
        return 0 if self._graph is None else int(self._graph.index_file_size())

    def _new(self, width: int) -> Any:
        import hnswlib

        return hnswlib.Index(space="l2" if self.metric == "euclidean" else "ip", dim=width)

    def _add(self, rows: Floats) -> None:
        if self._graph is None:
            graph = self._new(rows.shape[1])
            graph.init_index(len(rows), M=self.links, ef_construction=self.ef_construction, random_seed=self.seed)
            self._graph = graph
        else:
            self._graph.resize_index(self.ids_given + len(rows))
        first = self.ids_given
        self._graph.add_items(rows, np.arange(first, first + len(rows)), num_threads=self.threads or -1)

    def _remove(self, ids: Ints) -> None:
        for number in ids:
            self._graph.mark_deleted(int(number))

    def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        self._graph.set_ef(max(self.ef_search, k))
        chosen = None if allowed is None else lambda label: bool(allowed[label])
        threads = self.threads or -1 if allowed is None else 1  # threads would only wait for Python's lock
        try:
            labels, distances = self._graph.knn_query(rows, k=k, num_threads=threads, filter=chosen)
        except RuntimeError:  # raised when the graph yields fewer than k for some query; no other way to see it
            return self._search_singly(rows, k, chosen)
        return self._scores(distances), labels.astype(np.int64)

    def _scores(self, distances: Floats) -> Floats:
        """hnswlib has 1 − the product, or the squared distance."""
        return (1 - distances).astype(np.float32) if self.metric != "euclidean" else -np.sqrt(np.maximum(distances, 0))

    def _search_singly(self, rows: Floats, k: int, chosen: Callable[[int], bool] | None) -> tuple[Floats, Ints]:
        """Each query with the largest k that it can fill; the rest is id −1."""
        scores, ids = np.full((len(rows), k), -np.inf, np.float32), np.full((len(rows), k), -1, np.int64)
        for place, row in enumerate(rows):
            for count in range(k, 0, -1):
                try:
                    labels, distances = self._graph.knn_query(row[None], k=count, num_threads=1, filter=chosen)
                except RuntimeError:
                    continue
                scores[place, :count], ids[place, :count] = self._scores(distances[0]), labels[0]
                break
        return scores, ids

    def write(self, path: Path) -> None:
        """hnswlib's own file."""
        self._graph.save_index(str(path))

    def read(self, path: Path) -> None:
        """hnswlib's own file."""
        assert self.width is not None
        self._graph = self._new(self.width)
        self._graph.load_index(str(path), max_elements=self.ids_given)
