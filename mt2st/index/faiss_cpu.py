"""FAISS on the CPU by factory string: Flat, IVF-Flat, IVF-PQ, HNSW, SQ8 and whatever else the factory knows.

The first `add` trains an index that needs training, on the items it brings; later ones only append.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mt2st.errors import Mt2stError
from mt2st.index._base import Floats, Ints, VectorIndex, check_knobs
from mt2st.index._faiss import build, import_faiss, in_our_words, set_knobs


class Index(VectorIndex):
    """A FAISS index over unit vectors, inner product.

    Args:
        factory: FAISS's own factory string, such as "IVF64,Flat".
        nprobe: inverted lists looked at (IVF): 1 = fastest, number of lists = exhaustive.
        ef_search: candidates kept while searching (HNSW): larger = better and slower; at least k to be of use.
        ef_construction: the same while building (HNSW).
        threads: OpenMP threads; 0 = FAISS's own choice. A setting of the whole process, as FAISS has it; it decides
            speed.
        seed: of the clustering.
    """

    backend = "faiss_cpu"

    def __init__(
        self,
        factory: str = "Flat",
        nprobe: int | None = None,
        ef_search: int | None = None,
        ef_construction: int | None = None,
        threads: int = 0,
        seed: int = 1234,
    ) -> None:
        super().__init__()
        check_knobs(self.backend, {"nprobe": nprobe, "ef_search": ef_search, "ef_construction": ef_construction})
        check_knobs(self.backend, {"threads": threads, "seed": seed}, low=0)
        self._faiss = import_faiss(self.backend)
        self.factory, self.nprobe, self.ef_search, self.ef_construction = factory, nprobe, ef_search, ef_construction
        self.threads, self.seed = threads, seed
        self._index: Any = None

    @classmethod
    def example(cls) -> str:
        return ":IVF64,Flat?nprobe=8"

    @property
    def parameters(self) -> dict[str, Any]:
        """As given."""
        names = ("factory", "nprobe", "ef_search", "ef_construction", "threads", "seed")
        return {name: getattr(self, name) for name in names}

    @property
    def index_bytes(self) -> int:
        """Length of FAISS's own serialised form."""
        return 0 if self._index is None else len(self._faiss.serialize_index(self._index))

    def set_search_knobs(self, nprobe: int | None = None, ef_search: int | None = None) -> None:
        """Change what search looks at, without building again; None leaves a knob as it is."""
        check_knobs(self.backend, {"nprobe": nprobe, "ef_search": ef_search})
        if self._index is not None:
            set_knobs(self._faiss, self._index, {"nprobe": nprobe, "efSearch": ef_search}, self._faiss.ParameterSpace())
        self.nprobe = self.nprobe if nprobe is None else nprobe
        self.ef_search = self.ef_search if ef_search is None else ef_search

    def _add(self, rows: Floats) -> None:
        self._use_threads()
        if self._index is None:
            index = build(self._faiss, self.factory, rows, self.seed)
            knobs = {"efConstruction": self.ef_construction, "nprobe": self.nprobe, "efSearch": self.ef_search}
            set_knobs(self._faiss, index, knobs, self._faiss.ParameterSpace())
            with in_our_words(f"to train {self.factory!r} on {len(rows)} items"):
                index.train(rows)
                index.add(rows)
            self._index = index
        else:
            with in_our_words(f"to add to {self.factory!r}"):
                self._index.add(rows)

    def _search(self, rows: Floats, k: int) -> tuple[Floats, Ints]:
        self._use_threads()
        scores, ids = self._index.search(rows, k)
        return scores, ids

    def _use_threads(self) -> None:
        if self.threads:
            self._faiss.omp_set_num_threads(self.threads)

    def write(self, path: Path) -> None:
        """FAISS's own file."""
        with in_our_words(f"to write {path}"):
            self._faiss.write_index(self._index, str(path))

    def read(self, path: Path) -> None:
        """FAISS's own file."""
        try:
            with in_our_words(f"to read {path}"):
                self._index = self._faiss.read_index(str(path))
        except Mt2stError as error:
            raise Mt2stError(f"{error}; build the index again") from None
        set_knobs(
            self._faiss, self._index, {"nprobe": self.nprobe, "efSearch": self.ef_search}, self._faiss.ParameterSpace()
        )
