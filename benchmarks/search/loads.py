"""Speed under different loads: queries a call, threads, clients at once.

Every call is timed from outside and every time is kept, so that mean and percentiles come from the same ones. A client
is a thread that sends single queries, one after the other, and waits for each answer (a closed loop). A load ends after
so many calls or so many seconds, whichever comes first, but not before three calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt2st.index import VectorIndex

BATCHES = (1, 16, 0)
CLIENTS = (4, 16)  # one client is a batch of 1
FEWEST_CALLS = 3

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Load:
    """One way to ask.

    Attributes:
        batch: queries a call; 0 = all.
        threads: of the index.
        clients: that ask at once.
    """

    batch: int
    threads: int
    clients: int = 1


def loads(all_threads: int, has_threads: bool) -> list[Load]:
    """The loads to measure: each batch with 1 and with all threads, then several clients with 1 thread each."""
    counts = sorted({1, all_threads}) if has_threads else [all_threads]
    found = [Load(batch, threads) for threads in counts for batch in BATCHES]
    return found + [Load(1, counts[0], clients) for clients in CLIENTS]


def measured(
    index: VectorIndex, queries: NDArray[Any], k: int, load: Load, calls: int, seconds: float
) -> tuple[dict[str, float], Doubles]:
    """What a load came to, and the seconds of each call [calls]."""
    if "threads" in index.search_knobs:
        index.set_search_knobs(threads=load.threads)
    batch = load.batch or len(queries)
    starts = [(place * batch) % max(1, len(queries) - batch + 1) for place in range(calls)]
    shares = [starts[place :: load.clients] or starts[:1] for place in range(load.clients)]
    taken: list[list[float]] = [[] for _ in shares]
    failed: list[BaseException] = []
    gate = threading.Barrier(load.clients + 1)
    rows = [[np.ascontiguousarray(queries[start : start + batch]) for start in share] for share in shares]

    def client(number: int) -> None:
        gate.wait()
        try:
            _ask(index, rows[number], k, seconds, taken[number])
        except BaseException as error:  # noqa: BLE001  # raised again below, in the caller's thread
            failed.append(error)

    if load.clients == 1:
        started = time.perf_counter()
        _ask(index, rows[0], k, seconds, taken[0])
    else:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(load.clients)]
        for thread in threads:
            thread.start()
        gate.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
    wall = time.perf_counter() - started
    times = np.array([value for some in taken for value in some])
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return {
        "batch": float(batch),
        "threads": float(load.threads),
        "clients": float(load.clients),
        "calls": float(len(times)),
        "queries_per_second": len(times) * batch / wall,
        "p50_seconds": float(p50),
        "p95_seconds": float(p95),
        "p99_seconds": float(p99),
    }, times


def _ask(index: VectorIndex, batches: Iterable[NDArray[Any]], k: int, seconds: float, taken: list[float]) -> None:
    """Send one batch after the other, and note how long each took."""
    end = time.perf_counter() + seconds
    for rows in batches:
        started = time.perf_counter()
        index.search(rows, k)
        done = time.perf_counter()
        taken.append(done - started)
        if done > end and len(taken) >= FEWEST_CALLS:
            return
