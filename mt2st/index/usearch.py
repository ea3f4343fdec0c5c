"""HNSW by usearch (optional extra `index`), in several storage types."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mt2st.errors import Mt2stError, unknown_name
from mt2st.index._base import Flags, Floats, Ints, VectorIndex, check_knobs

STORAGE = ("f32", "f16", "bf16", "i8")


class Index(VectorIndex):
    """A graph.

    Args:
        storage: how vectors are kept: "f32", "f16", "bf16" or "i8" (4, 2, 2 and 1 bytes a number).
        links: links an item: more = better, larger, slower to build.
        ef_construction: candidates kept while building.
        ef_search: candidates kept while searching; raised to k where k is larger.
        threads: 0 = usearch's own choice, all processors.
        metric: "cosine", "dot" or "euclidean"; with "i8" the cosine alone.

    Its Python package has no filter, so a filtered search asks for more and drops what is not allowed.
    """

    backend = "usearch"
    search_knobs: ClassVar[Mapping[str, int]] = {"ef_search": 1 << 20, "threads": 4096}
    requires = "usearch"
    removes = True
    filters = False

    def __init__(
        self,
        storage: str = "f32",
        links: int = 16,
        ef_construction: int = 128,
        ef_search: int = 64,
        threads: int = 0,
        metric: str = "cosine",
    ) -> None:
        super().__init__(metric)
        if storage not in STORAGE:
            raise unknown_name("usearch storage", storage, STORAGE)
        check_knobs(self.backend, {"links": links}, low=2, high=512)
        check_knobs(self.backend, {"ef_construction": ef_construction, "ef_search": ef_search})
        check_knobs(self.backend, {"threads": threads}, low=0)
        if storage == "i8" and metric != "cosine":
            raise Mt2stError(f"index 'usearch': storage i8 has no scale for metric {metric!r}; take f32, f16 or bf16")
        if find_spec("usearch") is None:
            raise Mt2stError("index 'usearch' needs the package usearch; install it with pip install 'mt2st[index]'")
        self.storage, self.links, self.ef_construction, self.ef_search = storage, links, ef_construction, ef_search
        self.threads = threads
        self._graph: Any = None

    @classmethod
    def sweep(cls, num_items: int, width: int, along: str = "effort") -> list[str]:
        """One graph, searched with more and more effort, and one for each way to store a number."""
        if along == "precision":
            return [f"?storage={storage}&ef_search=64" for storage in STORAGE]
        return ["?ef_search=16,32,64,128,256"] if along == "effort" else []

    @property
    def index_bytes(self) -> int:
        """Length of usearch's own file."""
        return 0 if self._graph is None else int(self._graph.serialized_length)

    def _new(self, width: int) -> Any:
        if find_spec("faiss") is not None:
            import_module("faiss")  # loaded after usearch, FAISS crashes in its factory (1.15.1 and usearch 2.26.6)
        from usearch.index import Index as Graph

        return Graph(
            ndim=width,
            # Only the cosine takes out the scale of 8-bit integers.
            metric="cos" if self.storage == "i8" else "l2sq" if self.metric == "euclidean" else "ip",
            dtype=self.storage,
            connectivity=self.links,
            expansion_add=self.ef_construction,
            expansion_search=self.ef_search,
        )

    def _add(self, rows: Floats) -> None:
        if self._graph is None:
            self._graph = self._new(rows.shape[1])
        self._graph.add(np.arange(self.ids_given, self.ids_given + len(rows)), rows, threads=self.threads)

    def _remove(self, ids: Ints) -> None:
        self._graph.remove(ids)

    def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        self._graph.expansion_search = max(self.ef_search, k)
        found = self._graph.search(rows, k, threads=self.threads)
        scores, ids = np.full((len(rows), k), -np.inf, np.float32), np.full((len(rows), k), -1, np.int64)
        if len(rows) == 1:
            count = len(found.keys)
            scores[0, :count], ids[0, :count] = self._scores(np.ravel(found.distances)), np.ravel(found.keys)
            return scores, ids
        valid = np.arange(found.keys.shape[1]) < np.asarray(found.counts)[:, None]
        width = valid.shape[1]
        scores[:, :width] = np.where(valid, self._scores(found.distances), -np.inf)
        ids[:, :width] = np.where(valid, found.keys.astype(np.int64), -1)
        return scores, ids

    def _scores(self, distances: Floats) -> Floats:
        """usearch has 1 − the product, or the squared distance."""
        return 1 - distances if self.metric != "euclidean" else -np.sqrt(np.maximum(distances, 0))

    def write(self, path: Path) -> None:
        """usearch's own file."""
        self._graph.save(str(path))

    def read(self, path: Path) -> None:
        """usearch's own file."""
        assert self.width is not None
        self._graph = self._new(self.width)
        self._graph.load(str(path))
