"""FAISS on the CPU by factory string: Flat, IVF-Flat, IVF-PQ, HNSW, SQ8 and whatever else the factory knows.

The first `add` trains an index that needs training, on the items it brings; later ones only append.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mt2st.errors import Mt2stError
from mt2st.index._base import Floats, Ints, VectorIndex, check_knobs
from mt2st.index._faiss import EXAMPLE, build, import_faiss, in_our_words, set_knobs


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
    example = EXAMPLE
    search_knobs: ClassVar[Mapping[str, int]] = {"nprobe": 1 << 20, "ef_search": 1 << 20}

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

    @property
    def index_bytes(self) -> int:
        """Length of FAISS's own serialised form."""
        return 0 if self._index is None else len(self._faiss.serialize_index(self._index))

    def _use_knobs(self, knobs: Mapping[str, int | None]) -> None:
        if self._index is not None:
            set_knobs(self._index, knobs, self._faiss.ParameterSpace())

    def _add(self, rows: Floats) -> None:
        self._use_threads()
        if self._index is None:
            index = build(self._faiss, self.factory, rows, self.seed)
            knobs = {name: getattr(self, name) for name in ("ef_construction", "nprobe", "ef_search")}
            set_knobs(index, knobs, self._faiss.ParameterSpace())
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
        self._use_knobs({"nprobe": self.nprobe, "ef_search": self.ef_search})
