"""`python -m benchmarks shards`: how long a sharded search of a large gallery takes, and in how much memory.

A stated part of the items and of the queries is made, written to files and searched; its time is multiplied up to the
whole, since exact search takes time in proportion to items × queries. Memory is that of all processes together without
the pages of mapped files, which the system gives back when it needs them. The first queries are compared with one
index, bit for bit.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from benchmarks.options import parse_dataclass
from benchmarks.records.machine import describe, environment
from benchmarks.records.metrics_log import plain
from benchmarks.report.text_table import TextTable, print_tables
from mt2st.errors import Mt2stError, check_range
from mt2st.files import new_folder, write_sealed_json
from mt2st.index import create_index, parse_spec, search_shards
from mt2st.vectors import write_npy_header

_ROWS_AT_ONCE = 1 << 16
_COMPARED = 1024  # queries
_SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Options:
    """Search a part of a large gallery in shards, and say what the whole takes."""

    items: int = 10_000_000
    """vectors of the whole gallery"""
    queries: int = 1_000_000
    """of the whole"""
    width: int = 128
    """of the vectors"""
    part_items: int = 1_000_000
    """vectors that are made and searched"""
    part_queries: int = 4_096
    """queries that are asked"""
    spec: str = "exact"
    """exact, or faiss_cpu:… with its parameters"""
    shards: int = 8
    """parts of the gallery"""
    workers: int = 2
    """processes, of one thread each"""
    engine: str = "processes"
    """processes or ray"""
    k: int = 10
    """results a query"""
    scratch: Path = Path()
    """folder for the files, part_items × width × 8 bytes"""
    results: Path = Path("results")
    """folder for the record"""

    def __post_init__(self) -> None:
        for name in ("items", "queries", "width", "part_items", "part_queries", "shards", "workers", "k"):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), 1, 1 << 40)
        if self.part_items > self.items or self.part_queries > self.queries:
            raise Mt2stError("--part-items and --part-queries are parts of --items and --queries; give smaller ones")


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a bit differs from one index."""
    options = parse_dataclass(Options(), argv, prog="python -m benchmarks shards")
    console = Console()
    with tempfile.TemporaryDirectory(prefix=".shards-", dir=options.scratch) as place:
        folder = Path(place)
        _write(folder / "gallery.npy", options.part_items, options.width, 0)
        _write(folder / "queries.npy", options.part_queries, options.width, 1)
        with _Memory() as memory:
            started = time.perf_counter()
            scores, ids = search_shards(
                folder / "gallery.npy",
                folder / "queries.npy",
                options.k,
                shards=options.shards,
                spec=options.spec,
                workers=options.workers,
                engine=options.engine,
                scratch=folder,
            )
            seconds = time.perf_counter() - started
        same = _same_as_one_index(folder, options, scores, ids)
    share = options.part_items * options.part_queries / (options.items * options.queries)
    found = {
        "seconds": seconds,
        "products_per_second": options.part_items * options.part_queries / seconds,
        "peak_anonymous_bytes": memory.peak_bytes,
        "result_bytes": float(scores.nbytes + ids.nbytes),
        "same_as_one_index": same,
        "share_of_the_whole": share,
        "whole_seconds": seconds / share,
        # With the whole grow the result and the lengths of the rows; all else is blocks of a fixed size.
        "whole_peak_bytes": memory.peak_bytes
        + 12.0 * options.k * (options.queries - options.part_queries)
        + 8.0 * (options.items - options.part_items + options.queries - options.part_queries),
        "whole_file_bytes": 4.0 * options.width * (options.items + options.queries),
    }
    record = {
        **environment(),
        "benchmark": "shards",
        "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": plain(asdict(options), "options"),
        "measured": found,
    }
    head = ("what", "part (measured)", "whole (simulated)")
    body = (
        ("items", f"{options.part_items:,}", f"{options.items:,}"),
        ("queries", f"{options.part_queries:,}", f"{options.queries:,}"),
        ("time", f"{seconds:.1f} s", f"{seconds / share / 3600:.1f} h"),
        ("memory, MB", f"{memory.peak_bytes / 1e6:.0f}", f"{found['whole_peak_bytes'] / 1e6:.0f}"),
        ("ids and scores of one index", "yes" if same else "NO", "–"),
    )
    about = f"{options.shards} shards, {options.workers} workers, {options.spec}; {describe(record['hardware'])}"
    print_tables([TextTable("Sharded search", head, body, about)], console)
    path = new_folder(options.results / "shards", f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}") / "run.json"
    write_sealed_json(path, record)
    console.print(f"record: {path}", markup=False, highlight=False, soft_wrap=True)
    return 0 if same else 1


def _write(path: Path, rows: int, width: int, seed: int) -> None:
    """Gaussian vectors, block after block."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as stream:
        write_npy_header(stream, np.dtype(np.float32), (rows, width))
        for start in range(0, rows, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, rows - start)
            stream.write(rng.standard_normal((count, width), dtype=np.float32).tobytes())


def _same_as_one_index(folder: Path, options: Options, scores: Any, ids: Any) -> bool:
    """Whether the first queries have the scores and ids of one index with one thread."""
    ties = {"ties": "lowest"} if parse_spec(options.spec)[0] == "faiss_cpu" else {}
    index = create_index(options.spec, threads=1, **ties)
    index.add(np.load(folder / "gallery.npy", mmap_mode="r"))
    count = min(_COMPARED, options.part_queries)
    expected = index.search(np.load(folder / "queries.npy", mmap_mode="r")[:count], options.k)
    return bool((expected[0] == scores[:count]).all() and (expected[1] == ids[:count]).all())


class _Memory:
    """Peak of the anonymous memory of this process and those below it, by looking at them now and then."""

    def __init__(self) -> None:
        self.peak_bytes = 0.0
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Memory:
        self._watcher.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            this = psutil.Process()
            processes = [this, *this.children(recursive=True)]
            self.peak_bytes = max(self.peak_bytes, float(sum(map(_anonymous_bytes, processes))))


def _anonymous_bytes(process: psutil.Process) -> int:
    """What a process holds beside the pages of files, as Linux tells it."""
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        found = re.search(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE)
        return 1024 * int(found[1]) if found else 0
    except (OSError, psutil.Error):  # it has just ended
        return 0
