"""What `python -m benchmarks index` can be told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mt2st.errors import Mt2stError, check_range, unknown_name

PARTS = ("loads", "cold", "filters", "updates", "precision", "dimension")


@dataclass(frozen=True)
class Options:
    """Search an embedding set with every index there is: recall, hit rate, queries a second, tail latency, bytes."""

    data: str = ""
    """folder of a run or of embeddings; .hdf5 (ann-benchmarks), .fbin, .u8bin, .i8bin (big-ann), .npy or .safetensors
    file; or generated; empty = the newest retrieval run, else generated vectors"""
    queries: str = ""
    """file of queries for a single matrix; empty = take rows out of the gallery"""
    truth: str = ""
    """file of big-ann's ground truth for --queries; empty = what the data name, else computed"""
    metric: str = ""
    """cosine, dot (inner product) or euclidean (L2); empty = what the data say, else cosine"""
    tensor: str = ""
    """which tensor of a .safetensors file with several"""
    direction: str = "text_to_image"
    """for image and text embeddings: text_to_image or image_to_text"""
    distribution: str = "clustered"
    """of generated vectors: clustered, gaussian or uniform"""
    items: int = 20_000
    """generated vectors"""
    width: int = 64
    """width of generated vectors"""
    num_queries: int = 1_000
    """queries: generated, or taken out of a single matrix"""
    settings: tuple[str, ...] = ()
    """backend[:factory][?knob=value,value…] to measure; none = a sweep over all that is installed"""
    k: int = 10
    """results a query, 1 up to the number of items"""
    repetitions: int = 5
    """times that everything is timed, at least 1; all are stored"""
    single_queries: int = 100
    """queries sent one at a time in each repetition"""
    tolerance: float = 1e-4
    """ε of the tolerant recall, in cosine similarity; 0 = only as good as the exact k-th counts"""
    target_recall: float = 0.95
    """name the cheapest setting that reaches this recall, 0 to 1"""
    memory_mb: float = 0.0
    """name the fastest setting that is no larger, in MB of index; 0 = any size"""
    threads: int = 0
    """processor threads for search; 0 = as many as the process may use"""
    seconds: float = 10.0
    """cut a measurement short after so many seconds, never below three calls"""
    parts: tuple[str, ...] = ("loads", "cold", "filters", "updates")
    """what is measured beside recall and speed: loads, cold, filters, updates; precision and dimension add settings"""
    options: tuple[str, ...] = ()
    """KEY=VALUE handed to each backend that knows the key, such as uri=http://host:19530 for milvus"""
    ann_benchmarks: bool = False
    """also write the results as ann-benchmarks keeps them, in HDF5"""
    seed: int = 0
    """of generated vectors and of the choice of queries"""
    smoke: bool = False
    """a small set, few repetitions: for a first look"""
    results: Path = Path("results")
    """folder for the records"""

    def __post_init__(self) -> None:
        for name, high in (("k", 1 << 20), ("repetitions", 10_000), ("single_queries", 1 << 20)):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), 1, high)
        check_range("--seconds", self.seconds, 0.01, 3600)
        check_range("--memory-mb", self.memory_mb, 0, 1e9, "0 = any size")
        for part in self.parts:
            if part not in PARTS:
                raise unknown_name("part of --parts", part, PARTS)
        for option in self.options:
            if not option.partition("=")[0].isidentifier() or not option.partition("=")[2]:
                raise Mt2stError(f"--options {option!r}; write KEY=VALUE, such as uri=http://host:19530")
        check_range("--threads", self.threads, 0, 4096, "0 = as many as the process may use")
        check_range("--tolerance", self.tolerance, 0, 2, "cosines differ by 2 at most")
        check_range("--target-recall", self.target_recall, 0, 1, "a share, such as 0.95")

    def small(self) -> Options:
        """The same in small, for a first look."""
        return replace(
            self,
            items=min(self.items, 4_000),
            width=min(self.width, 32),
            num_queries=min(self.num_queries, 200),
            repetitions=min(self.repetitions, 3),
            single_queries=min(self.single_queries, 30),
            seconds=min(self.seconds, 1.0),
            parts=self.parts if self.parts != Options.parts else (),
            # OpenMP's threads wait for each other actively: on a busy machine that takes far longer.
            threads=self.threads or 1,
        )
