"""`python -m benchmarks peers milvus`: our Milvus backend beside its own client called directly, on one collection.

The same queries go through ours, through the client, and through the client once more (the control), in changing order.
Ours also makes arrays of what comes back. The promise: at most 5 % slower. Needs the extra `milvus`; nothing is
downloaded. About two minutes on 2 idle cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.options import parse_dataclass
from benchmarks.speed.lines import Comparison, Line
from mt2st.errors import check_range
from mt2st.index import create_index
from mt2st.vectors import unit_rows

PROMISED_OVERHEAD = 0.05


@dataclass(frozen=True)
class Options:
    """Our Milvus backend beside Milvus's own client."""

    kind: str = "HNSW"
    """index type: FLAT, IVF_FLAT, HNSW"""
    uri: str = ""
    """empty = embedded; or http://host:port, its token in MILVUS_TOKEN"""
    items: int = 20_000
    """vectors in the collection"""
    width: int = 128
    """of the vectors"""
    batches: tuple[int, ...] = (1, 100)
    """queries a call"""
    pairs: int = 30
    """times that the same queries go each way"""
    k: int = 10
    """results a query"""
    seed: int = 0
    """of the vectors"""
    smoke: bool = False
    """small sizes: for a first look, the promise not judged"""
    results: Path = Path("results")
    """folder for the record"""

    def __post_init__(self) -> None:
        for name, high in (("items", 10**8), ("width", 1 << 15), ("pairs", 10_000), ("k", 16_384)):
            check_range(f"--{name}", getattr(self, name), 1, high)


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if the promise does not hold."""
    options = parse_dataclass(Options(), argv, prog="python -m benchmarks peers milvus")
    console = Console()
    items, pairs = (2_000, 4) if options.smoke else (options.items, options.pairs)
    rng = np.random.default_rng(options.seed)
    index = create_index("milvus", factory=options.kind, uri=options.uri)
    index.add(rng.standard_normal((items, options.width), dtype=np.float32))
    measured = {}
    for batch in options.batches:
        asked = unit_rows("queries", rng.standard_normal((batch, options.width), dtype=np.float32))
        measured[str(batch)] = _seconds(index, asked, options.k, pairs)
    comparison = Comparison(
        "peers milvus", f"Milvus {options.kind}: ours beside its own client", options, options.results
    )
    for batch, seconds in measured.items():
        comparison.keep(f"batch {batch}", seconds, _lines(batch, seconds, items, options))
    return comparison.show(console)


def _lines(batch: str, seconds: dict[str, list[float]], items: int, options: Options) -> list[Line]:
    ours, control = overheads(seconds)
    what = f"{options.kind}, {items:,} × {options.width}, {batch} queries a call"
    times = (f"{1e3 * median(seconds[way]):.2f} ms" for way in ("ours", "direct"))
    goal, met = (f"≤ {PROMISED_OVERHEAD:.0%}", ours <= PROMISED_OVERHEAD) if not options.smoke else ("", None)
    return [
        Line(f"{what}: ours / its client", " / ".join(times)),
        Line(f"{what}: ours is slower by", f"{ours:+.1%}", goal, met),
        Line(f"{what}: its client beside itself", f"{control:+.1%}"),
    ]


def overheads(seconds: dict[str, list[float]]) -> tuple[float, float]:
    """Median over pairs of ours / direct − 1, and of control / direct − 1: what the machine's noise amounts to."""
    return (
        median(ours / direct for ours, direct in zip(seconds["ours"], seconds["direct"])) - 1,
        median(control / direct for control, direct in zip(seconds["control"], seconds["direct"])) - 1,
    )


def _seconds(index: Any, asked: np.ndarray, k: int, pairs: int) -> dict[str, list[float]]:
    """Seconds of each call, way by way; the first turn warms up."""
    client, name = getattr(index, "_client"), getattr(index, "_name")  # noqa: B009  # the very ones that ours asks

    def direct() -> Any:
        return client.search(
            name,
            data=list(asked),
            anns_field="embedding",
            limit=k,
            output_fields=["id"],
            search_params={"params": {"ef": max(index.ef_search, k), "nprobe": index.nprobe}},
            consistency_level=index.consistency,
        )

    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: index.search(asked, k),
        "direct": direct,
        "control": direct,
    }
    orders = tuple(permutations(ways))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(pairs + 1):
        for way in orders[turn % len(orders)]:
            started = time.perf_counter()
            ways[way]()
            spent = time.perf_counter() - started
            if turn:
                seconds[way].append(spent)
    return seconds
