"""FAISS on the CPU by factory string: Flat, IVF-Flat, IVF-PQ, HNSW, SQ8 and whatever else the factory knows.

The first `add` trains an index that needs training, on the items it brings; later ones only append.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mt2st.errors import Mt2stError, unknown_name
from mt2st.index._base import Flags, Floats, Ints, VectorIndex, check_knobs
from mt2st.index._faiss import (
    EXAMPLE,
    as_scores,
    build,
    filtering,
    import_faiss,
    in_our_words,
    lists_for,
    probes_for,
    set_knobs,
)
from mt2st.index._topk import ordered

TIES = ("any", "lowest")


class Index(VectorIndex):
    """A FAISS index.

    Args:
        factory: FAISS's own factory string, such as "IVF64,Flat".
        nprobe: inverted lists looked at (IVF): 1 = fastest, number of lists = exhaustive.
        ef_search: candidates kept while searching (HNSW): larger = better and slower; at least k to be of use.
        ef_construction: the same while building (HNSW).
        threads: OpenMP threads; 0 = FAISS's own choice. A setting of the whole process, as FAISS has it; it decides
            speed.
        seed: of the clustering.
        ties: "any" = of equal scores FAISS keeps which it likes; "lowest" = those with the lowest ids, as exact search,
            for which it is asked again where a tie goes beyond the k-th.
        k_factor: candidates a result that are ranked again by full vectors ("…,RFlat"): 1 = only reordered.
        metric: "cosine", "dot" or "euclidean".
    """

    backend = "faiss_cpu"
    example = EXAMPLE
    search_knobs: ClassVar[Mapping[str, int]] = {
        "nprobe": 1 << 20,
        "ef_search": 1 << 20,
        "k_factor": 1 << 20,
        "threads": 4096,
    }
    requires = "faiss"

    def __init__(
        self,
        factory: str = "Flat",
        nprobe: int | None = None,
        ef_search: int | None = None,
        ef_construction: int | None = None,
        threads: int = 0,
        seed: int = 1234,
        k_factor: int | None = None,
        ties: str = "any",
        metric: str = "cosine",
    ) -> None:
        super().__init__(metric)
        check_knobs(self.backend, {"nprobe": nprobe, "ef_search": ef_search, "ef_construction": ef_construction})
        check_knobs(self.backend, {"k_factor": k_factor})
        check_knobs(self.backend, {"threads": threads, "seed": seed}, low=0)
        self._faiss = import_faiss(self.backend)
        self.factory, self.nprobe, self.ef_search, self.ef_construction = factory, nprobe, ef_search, ef_construction
        if ties not in TIES:
            raise unknown_name("ties of index 'faiss_cpu'", ties, TIES)
        self.ties = ties
        self.threads, self.seed, self.k_factor = threads, seed, k_factor
        self._index: Any = None

    @classmethod
    def sweep(cls, num_items: int, width: int, along: str = "effort") -> list[str]:
        """Flat, inverted lists with and without product quantisation, a graph, 8-bit numbers.

        Along precision: 32, 16, 8 bits and 1 bit a number, and 1 bit with the best ranked again by the full vectors.
        Along dimension: the first components alone, as a Matryoshka model means it, and as many principal ones. Product
        quantisers get the finest split with at least 2 dimensions a code, if there are the 256 items that their
        codebooks need ("np": without FAISS's polysemous training, 20 s for 4,000 items).
        """
        if along == "precision":
            return [":Flat", ":SQfp16", ":SQ8", ":RaBitQ", ":RaBitQ,RFlat?k_factor=2,4,8,16"]
        if along == "dimension":
            widths = [width // part for part in (2, 4, 8) if width // part >= 4]
            return [":Flat"] + [
                text
                for some in widths
                for text in (f":Flat?dimensions={some}", f":PCA{some},Flat")
                if some <= num_items
            ]
        lists = lists_for(num_items)
        probes = f"?nprobe={probes_for(lists)}"
        codes = next((count for count in range(width // 2, 0, -1) if width % count == 0), 1)
        found = [":Flat", f":IVF{lists},Flat{probes}"]
        found += [f":IVF{lists},PQ{codes}np{probes}"] if num_items >= 256 else []
        found += [":HNSW32?ef_search=16,32,64,128,256", ":SQ8"]
        return found

    @property
    def index_bytes(self) -> int:
        """Length of FAISS's own serialised form."""
        return 0 if self._index is None else len(self._faiss.serialize_index(self._index))

    def _use_knobs(self, knobs: Mapping[str, int | None]) -> None:
        if self._index is not None:
            of_the_index = {name: value for name, value in knobs.items() if name != "threads"}
            set_knobs(self._index, of_the_index, self._faiss.ParameterSpace())

    def _add(self, rows: Floats) -> None:
        if self._index is None:
            self.train(rows)
        self._use_threads()
        with in_our_words(f"to add to {self.factory!r}"):
            self._index.add(rows)

    def train(self, rows: Floats) -> None:
        """Learn from rows [n, E] what the factory learns, and hold none of them; for shards that share it."""
        self._use_threads()
        index = build(self._faiss, self.factory, rows, self.seed, self.metric)
        knobs = {name: getattr(self, name) for name in ("ef_construction", "nprobe", "ef_search", "k_factor")}
        set_knobs(index, knobs, self._faiss.ParameterSpace())
        with in_our_words(f"to train {self.factory!r} on {len(rows)} items"):
            index.train(rows)
        self._index = index

    def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        self._use_threads()
        return self._nearest(rows, k, allowed) if self.ties == "any" else self._lowest(rows, k, allowed)

    def _lowest(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        """The k best; where the k-th score goes on beyond it, so much is asked for that all equal ones are there."""
        most, depth = self.ids_given, min(self.ids_given, k + 1)
        scores, ids = self._nearest(rows, depth, allowed)
        while depth < most and ((scores[:, k - 1] == scores[:, -1]) & (ids[:, -1] >= 0)).any():
            depth = min(most, 2 * depth)
            scores, ids = self._nearest(rows, depth, allowed)  # all rows: with fewer, products may round differently
        return ordered(scores, ids, k)

    def _nearest(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        if allowed is None:
            values, ids = self._index.search(rows, k)
        else:
            bits = np.packbits(allowed, bitorder="little")  # kept alive while FAISS reads it
            selector = self._faiss.IDSelectorBitmap(bits)
            with in_our_words(f"to filter a search of {self.factory!r}"):
                values, ids = self._index.search(rows, k, params=filtering(self._faiss, self._index, selector))
        return as_scores(values, self.metric), ids

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
        self._use_knobs({"nprobe": self.nprobe, "ef_search": self.ef_search, "k_factor": self.k_factor})
