"""FAISS on a GPU: Flat, IVF-Flat, IVF-PQ by factory string, and CAGRA where the build has it.

FAISS can leave an index on the CPU without a word (faiss#953); here the type of what comes back is checked, and an
index that is not on the GPU is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mt2st.errors import Mt2stError
from mt2st.index._base import Flags, Floats, Ints, VectorIndex, check_knobs
from mt2st.index._faiss import (
    EXAMPLE,
    as_scores,
    build,
    import_faiss,
    in_our_words,
    lists_for,
    probes_for,
    set_knobs,
)

CAGRA = "CAGRA"
# Codes a vector that FAISS has GPU kernels for: more than 48 tables of 256 float32 do not fit into 48 KiB of shared
# memory.
GPU_CODES = (48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)
# Dimensions a code that FAISS's GPU kernels take without precomputed tables; 1 would be no compression.
GPU_CODE_DIMENSIONS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32)
_LARGEST_K = 2048  # FAISS's own limit on a GPU, for k and nprobe


class Index(VectorIndex):
    """A FAISS GPU index.

    Args:
        factory: "Flat", "IVF64,Flat", "IVF64,PQ16" …, or "CAGRA".
        nprobe: inverted lists looked at (IVF).
        device: number of the GPU; with several, of the first.
        gpus: how many GPUs share the items, in shards that FAISS merges; 1 = one GPU holds all. Not for CAGRA.
        scratch_bytes: scratch memory that FAISS reserves at once; 0 = none, allocated when needed.
        seed: of the clustering.
        metric: "cosine", "dot" or "euclidean".
    """

    backend = "faiss_gpu"
    example = EXAMPLE
    search_knobs: ClassVar[Mapping[str, int]] = {"nprobe": _LARGEST_K}
    requires = "faiss"
    on_gpu = True
    filters = False  # not every GPU index has selectors

    def __init__(
        self,
        factory: str = "Flat",
        nprobe: int | None = None,
        device: int = 0,
        scratch_bytes: int = 256 << 20,
        seed: int = 1234,
        metric: str = "cosine",
        gpus: int = 1,
    ) -> None:
        super().__init__(metric)
        check_knobs(self.backend, {"nprobe": nprobe}, high=_LARGEST_K)
        check_knobs(self.backend, {"device": device, "seed": seed}, low=0)
        check_knobs(self.backend, {"gpus": gpus}, high=1024)
        if gpus > 1 and factory == CAGRA:
            raise Mt2stError("index 'faiss_gpu': CAGRA is built on one GPU; leave gpus out, or use IVF64,Flat")
        check_knobs(self.backend, {"scratch_bytes": scratch_bytes}, low=0, high=1 << 40)
        faiss = import_faiss(self.backend)
        if not hasattr(faiss, "StandardGpuResources"):
            raise Mt2stError(
                "index 'faiss_gpu': this FAISS knows no GPU; install the extra gpu instead of cpu, or use faiss_cpu"
            )
        if not 0 <= device <= device + gpus - 1 < faiss.get_num_gpus():
            asked = f"device = {device}" + (f" with gpus = {gpus}" if gpus > 1 else "")
            raise Mt2stError(f"index 'faiss_gpu': {asked}, but FAISS sees {faiss.get_num_gpus()} GPUs; use faiss_cpu")
        self.factory, self.nprobe, self.device = factory, nprobe, device
        self.scratch_bytes, self.seed = scratch_bytes, seed
        self.gpus = gpus
        self._faiss = faiss
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(scratch_bytes)
        self._of_the_others = [faiss.StandardGpuResources() for _ in range(gpus - 1)]
        for resources in self._of_the_others:
            resources.setTempMemory(scratch_bytes)
        self._index: Any = None

    @classmethod
    def sweep(cls, num_items: int, width: int, along: str = "effort") -> list[str]:
        """Flat, inverted lists with and without product quantisation, and CAGRA.

        Product quantisers get the finest split that FAISS has a kernel for; a width that allows none, such as a prime
        one, goes without.
        """
        if along != "effort":
            return []
        lists = lists_for(num_items)
        probes = f"?nprobe={probes_for(lists)}"
        codes = next((count for count in GPU_CODES if width % count == 0 and width // count in GPU_CODE_DIMENSIONS), 0)
        found = [":Flat", f":IVF{lists},Flat{probes}"]
        found += [f":IVF{lists},PQ{codes}np{probes}"] if codes and num_items >= 256 else []
        return [*found, f":{CAGRA}"]

    @property
    def index_bytes(self) -> int:
        """Length of the serialised form of its copy on the CPU; scratch memory not included."""
        return 0 if self._index is None else len(self._faiss.serialize_index(self._on_cpu()))

    def _use_knobs(self, knobs: Mapping[str, int | None]) -> None:
        if self._index is not None:
            set_knobs(self._index, knobs, self._faiss.GpuParameterSpace())

    def _add(self, rows: Floats) -> None:
        if self._index is not None:
            with in_our_words(f"to add to {self.factory!r} on the GPU"):
                self._index.add(rows)
            return
        if self.factory == CAGRA:
            self._index = self._cagra(rows)
            return
        empty = build(self._faiss, self.factory, rows, self.seed, self.metric)
        index = self._to_gpu(empty)
        with in_our_words(f"to train {self.factory!r} on {len(rows)} items"):
            index.train(rows)
            index.add(rows)
        self._index = index

    def _cagra(self, rows: Floats) -> Any:
        if not hasattr(self._faiss, "GpuIndexCagra"):
            raise Mt2stError(
                "index 'faiss_gpu': this FAISS build has no CAGRA (it needs cuVS); use IVF64,Flat or another factory "
                "string"
            )
        with in_our_words("to build CAGRA"):
            config = self._faiss.GpuIndexCagraConfig()
            config.device = self.device
            kind = self._faiss.METRIC_L2 if self.metric == "euclidean" else self._faiss.METRIC_INNER_PRODUCT
            index = self._faiss.GpuIndexCagra(self._resources, rows.shape[1], kind, config)
            index.train(rows)  # builds the graph over the items themselves
        return index

    def _to_gpu(self, index: Any) -> Any:
        """The index on the GPU or its shards on the GPUs, proved by their type."""
        if self.gpus > 1:
            return self._to_gpus(index)
        with in_our_words(f"to put {self.factory!r} on the GPU"):
            moved = self._faiss.downcast_index(self._faiss.index_cpu_to_gpu(self._resources, self.device, index))
        if not isinstance(moved, self._faiss.GpuIndex):
            raise Mt2stError(
                f"index 'faiss_gpu': FAISS left {self.factory!r} on the CPU ({type(moved).__name__}); use Flat, "
                "IVFn,Flat or IVFn,PQm, or the backend faiss_cpu"
            )
        set_knobs(moved, {"nprobe": self.nprobe}, self._faiss.GpuParameterSpace())
        return moved

    def _to_gpus(self, index: Any) -> Any:
        """One shard a GPU; an inverted file is trained once, and the GPUs hold its items under the same centroids."""
        options = self._faiss.GpuMultipleClonerOptions()
        options.shard = True
        options.common_ivf_quantizer = False
        numbers = list(range(self.device, self.device + self.gpus))
        with in_our_words(f"to put {self.factory!r} on {self.gpus} GPUs"):
            moved = self._faiss.index_cpu_to_gpu_multiple_py(
                [self._resources, *self._of_the_others], index, options, numbers
            )
        parts = [self._faiss.downcast_index(moved.at(place)) for place in range(moved.count())]
        if len(parts) != self.gpus or not all(isinstance(part, self._faiss.GpuIndex) for part in parts):
            raise Mt2stError(
                f"index 'faiss_gpu': FAISS left a shard of {self.factory!r} on the CPU; use Flat, IVFn,Flat or "
                "IVFn,PQm, or the backend faiss_cpu"
            )
        set_knobs(moved, {"nprobe": self.nprobe}, self._faiss.GpuParameterSpace())
        return moved

    def _on_cpu(self) -> Any:
        with in_our_words(f"to copy {self.factory!r} to the CPU"):
            if self.factory == CAGRA:
                graph = self._faiss.IndexHNSWCagra()
                self._index.copyTo(graph)
                return graph
            return self._faiss.index_gpu_to_cpu(self._index)

    def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        if k > _LARGEST_K:
            raise Mt2stError(
                f"index 'faiss_gpu': k = {k} is above FAISS's limit of {_LARGEST_K} on a GPU; use faiss_cpu or exact"
            )
        values, ids = self._index.search(rows, k)
        return as_scores(values, self.metric), ids

    def write(self, path: Path) -> None:
        """FAISS's own file, of the copy on the CPU."""
        cpu = self._on_cpu()
        with in_our_words(f"to write {path}"):
            self._faiss.write_index(cpu, str(path))

    def read(self, path: Path) -> None:
        """FAISS's own file, put on the GPU."""
        with in_our_words(f"to read {path}; build the index again"):
            index = self._faiss.read_index(str(path))
        self._index = self._to_gpu(index)
