"""What is measured of one search setting.

The harness grades: an index reports nothing of itself.

Quality is computed here from the ids that come back: their similarities anew in float64, their overlap with exact
search, and the task's own hit rate. Times are wall times of repetitions that are all kept; mean and percentiles come
from the same ones.
"""

from __future__ import annotations

import gc
import inspect
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.records.machine import (
    peak_gpu_bytes,
    peak_resident_bytes,
    reset_peak_gpu,
    reset_peak_resident,
    resident_bytes,
)
from benchmarks.search.changes import exact_index, filtered, updated
from benchmarks.search.cold import cold
from benchmarks.search.data import SearchData
from benchmarks.search.loads import FEWEST_CALLS, loads, measured
from benchmarks.search.plans import Plan
from benchmarks.search.quality import FIELD_TOLERANCE, Truth, ann_recall, similarities, tolerant_recall
from mt2st.errors import Mt2stError
from mt2st.evaluate import check_ids, hits_through_index
from mt2st.index import VectorIndex, backend_class, create_index, parse_spec
from mt2st.threads import usable_threads

TASK_CUTOFFS = (1, 5, 10)
_UNSAID = ("factory", "threads", "metric", "uri", "collection")  # in no label
RAW = ("batch_seconds", "single_seconds", "load_seconds", "ids", "similarities")  # arrays, kept beside the record
_FEWER_QUERIES = 200  # of those that filters and updates are measured on

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass
class Measured:
    """One row of the table, and its raw repetitions (seconds)."""

    label: str
    spec: str
    parameters: dict[str, Any]
    quality: dict[str, float]
    cost: dict[str, float]
    batch_seconds: Doubles  # [repetitions]
    single_seconds: Doubles  # [repetitions, queries]
    loads: list[dict[str, float]]  # see benchmarks/search/loads.py
    load_seconds: list[Doubles]  # the raw times of each of them
    ids: Ints  # [queries, k]
    similarities: Doubles  # [queries, k]
    more: dict[str, Any]  # `cold`, `filters`, `updates` and their `holes`, with the last setting of an index


@dataclass(frozen=True)
class Protocol:
    """How it is measured.

    Attributes:
        k: results a query.
        repetitions: times that everything is timed.
        single_queries: queries sent one at a time.
        tolerance: ε of the tolerant recall.
        threads: 0 = all.
        seconds: after which a measurement is cut short; never below three calls.
        parts: what is measured beside recall and speed: "loads", "cold", "filters", "updates".
        seed: of the items that filters allow and updates replace.
    """

    k: int
    repetitions: int
    single_queries: int
    tolerance: float
    threads: int
    seconds: float = 10.0
    parts: tuple[str, ...] = ()
    seed: int = 0


def measure(
    plan: Plan,
    data: SearchData,
    truth: Truth,
    protocol: Protocol,
    exact: VectorIndex | None = None,
    scratch: Path = Path(),
) -> Iterator[Measured]:
    """Build one index, then measure each of its search-time settings.

    Args:
        plan: the index and its settings.
        data: what is searched.
        truth: exact search on it.
        protocol: how.
        exact: an exact index of the data, for filters.
        scratch: a folder on the disk that files are measured on.

    Raises:
        Mt2stError: the index cannot be built on these data, or returns broken ids.
    """
    searched = data
    if plan.dimensions:
        if plan.dimensions > data.gallery.shape[1]:
            raise Mt2stError(f"dimensions = {plan.dimensions}, but {data.name} is {data.gallery.shape[1]} wide")
        parts = (data.gallery[:, : plan.dimensions], data.queries[:, : plan.dimensions])
        searched = replace(data, gallery=np.ascontiguousarray(parts[0]), queries=np.ascontiguousarray(parts[1]))
    gc.collect()
    reset_peak_resident()
    reset_peak_gpu()
    before, gpu_before = resident_bytes(), _gpu_used()
    index = create_index(plan.spec, **parameters_for(plan.spec, protocol.threads, data.metric))
    started = time.perf_counter()
    index.add(searched.gallery)
    build_seconds = time.perf_counter() - started
    building = {
        "build_seconds": build_seconds,
        "index_bytes": float(index.index_bytes),
        "resident_before_bytes": float(before),
        "peak_resident_building_bytes": float(peak_resident_bytes()),
    }
    settings = plan.settings()
    for place, knobs in enumerate(settings):
        if knobs:
            index.set_search_knobs(**knobs)
        row = _one(index, plan, searched, data, truth, protocol)
        row.cost.update(building)
        row.cost["peak_resident_bytes"] = float(peak_resident_bytes())
        row.cost["peak_above_start_bytes"] = float(max(0, peak_resident_bytes() - before))
        row.cost["gpu_bytes"] = float(max(peak_gpu_bytes(), _gpu_used() - gpu_before, 0))
        if place == len(settings) - 1:
            row.more.update(_more(index, searched, data, truth, protocol, exact, scratch))
        yield row


def _more(
    index: VectorIndex,
    searched: SearchData,
    data: SearchData,
    truth: Truth,
    protocol: Protocol,
    exact: VectorIndex | None,
    scratch: Path,
) -> dict[str, Any]:
    """What is measured once an index; what cannot be is named under `holes`. Updates come last, for they change it."""
    k, queries = truth.ids.shape[1], min(len(data.queries), _FEWER_QUERIES)
    found: dict[str, Any] = {}
    holes: dict[str, str] = {}
    parts: dict[str, Callable[[], Any]] = {
        "cold": lambda: cold(index, searched.queries, k, scratch),
        "filters": lambda: filtered(index, searched, data, exact or exact_index(data), k, protocol.seed, queries),
        "updates": lambda: updated(index, searched, data, truth, k, protocol.seed, queries),
    }
    for name, part in parts.items():
        if name in protocol.parts:
            try:
                found[name] = part()
            except Mt2stError as error:
                holes[name] = str(error)
    return {**found, **({"holes": holes} if holes else {})}


def _one(
    index: VectorIndex, plan: Plan, searched: SearchData, data: SearchData, truth: Truth, protocol: Protocol
) -> Measured:
    k = truth.ids.shape[1]
    _, ids = index.search(searched.queries, k)  # also warms up
    check_ids(ids, len(data.gallery), index.backend)
    found = similarities(data, ids)
    quality = {
        f"ann_recall@{k}": ann_recall(ids, truth.ids),
        f"ann_recall_tolerant@{k}": tolerant_recall(found, truth.similarities, protocol.tolerance),
        f"ann_benchmarks_recall@{k}": tolerant_recall(found, truth.similarities, FIELD_TOLERANCE),
    }
    if len(data.asking) and data.metric == "cosine":
        pairs = (data.asking, data.relevant)
        quality.update(hits_through_index(index, searched.queries, searched.gallery, *pairs, TASK_CUTOFFS))
    batch = np.array(_repeated(lambda: _seconds(index, searched.queries, k), protocol.repetitions, protocol.seconds))
    some = _affordable(index, searched.queries[: protocol.single_queries], k, protocol.seconds)
    single = np.array(
        _repeated(
            lambda: [_seconds(index, some[row : row + 1], k) for row in range(len(some))],
            protocol.repetitions,
            protocol.seconds,
        )
    )
    p50, p95, p99 = np.percentile(single, (50, 95, 99))
    cost = {
        "batch_queries_per_second": len(data.queries) / float(batch.mean()),
        "single_queries_per_second": 1 / float(single.mean()),
        "single_mean_seconds": float(single.mean()),
        "single_p50_seconds": float(p50),
        "single_p95_seconds": float(p95),
        "single_p99_seconds": float(p99),
    }
    label = _label(plan, index)
    parameters = dict(index.parameters)  # before loads change the threads
    every, raw = _loads(index, searched, k, protocol) if "loads" in protocol.parts else ([], [])
    return Measured(label, plan.spec, parameters, quality, cost, batch, single, every, raw, ids, found, {})


def _label(plan: Plan, index: VectorIndex) -> str:
    """How tables and pictures call a setting: the backend or its factory string, and every knob that was given."""
    given = parse_spec(plan.spec)[1]
    label = plan.spec.partition("?")[0].replace("faiss_cpu:", "").replace("faiss_gpu:", "GPU ")
    label += f" first {plan.dimensions}" if plan.dimensions else ""
    for name in (*(name for name in given if name not in _UNSAID), *([plan.knob] if plan.knob else [])):
        if (value := index.parameters.get(name)) is not None:
            label += f" {name}={value}"
    return label


def _loads(
    index: VectorIndex, searched: SearchData, k: int, protocol: Protocol
) -> tuple[list[dict[str, float]], list[Doubles]]:
    """Every load on the index as it is set now; its threads are put back."""
    threads = index.parameters.get("threads")
    found = [
        measured(index, searched.queries, k, load, protocol.single_queries, protocol.seconds / 5)
        for load in loads(protocol.threads or usable_threads(), threads is not None)
    ]
    if threads:
        index.set_search_knobs(threads=threads)
    return [cost for cost, _ in found], [times for _, times in found]


def _repeated(call: Callable[[], Any], times: int, seconds: float) -> list[Any]:
    """What so many calls give, or as many as begin within so many seconds."""
    end, found = time.perf_counter() + seconds, [call()]
    while len(found) < times and time.perf_counter() < end:
        found.append(call())
    return found


def _affordable(index: VectorIndex, queries: NDArray[Any], k: int, seconds: float) -> NDArray[Any]:
    """As many queries as take about so long one at a time, at least three."""
    one = min(_seconds(index, queries[:1], k) for _ in range(2))
    return queries[: max(FEWEST_CALLS, int(seconds / one))]


def _seconds(index: VectorIndex, queries: NDArray[Any], k: int) -> float:
    started = time.perf_counter()
    index.search(queries, k)
    return time.perf_counter() - started


def parameters_for(spec: str, threads: int, metric: str) -> dict[str, Any]:
    """Threads, for backends that have them, and the metric; what the spec says already goes before."""
    name, given = parse_spec(spec)
    known = {"threads": threads or None, "metric": metric if metric != "cosine" else None}
    takes = inspect.signature(backend_class(name)).parameters
    return {key: value for key, value in known.items() if value is not None and key in takes and key not in given}


def _gpu_used() -> int:
    """Bytes in use on the GPU by anyone, which is the only number that includes FAISS's own; 0 without CUDA."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return int(total - free)
