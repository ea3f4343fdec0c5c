"""What is measured of one search setting, and which settings are swept.

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
from dataclasses import dataclass
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
from benchmarks.search.data import SearchData
from benchmarks.search.quality import FIELD_TOLERANCE, Truth, ann_recall, similarities, tolerant_recall
from mt2st.errors import Mt2stError
from mt2st.evaluate import check_ids, hits_through_index
from mt2st.index import VectorIndex, backend_class, backend_names, create_index, parse_spec

TASK_CUTOFFS = (1, 5, 10)

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """One index to build, and the search-time settings to try on it.

    Attributes:
        spec: a text for `create_index`.
        knob: the search-time parameter that is swept, "" for none.
        values: its values.
    """

    spec: str
    knob: str = ""
    values: tuple[int, ...] = ()

    def settings(self) -> list[dict[str, int]]:
        """The search-time settings, one empty where nothing is swept."""
        return [{self.knob: value} for value in self.values] if self.knob else [{}]


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


@dataclass(frozen=True)
class Protocol:
    """How it is measured.

    Attributes:
        k: results a query.
        repetitions: times that everything is timed.
        single_queries: queries sent one at a time.
        tolerance: ε of the tolerant recall.
        threads: 0 = all.
    """

    k: int
    repetitions: int
    single_queries: int
    tolerance: float
    threads: int


def parse_plan(text: str) -> Plan:
    """A plan from a spec whose search-time knob may list values: `faiss_cpu:IVF64,Flat?nprobe=1,4,16`."""
    head, _, tail = text.partition("?")
    fixed: list[str] = []
    swept: list[str] = []
    for knob in filter(None, tail.split("&")):
        (swept if "," in knob else fixed).append(knob)
    if len(swept) > 1:
        raise Mt2stError(f"setting {text!r} sweeps {len(swept)} knobs; list values for one, such as nprobe=1,4,16")
    spec = head + ("?" + "&".join(fixed) if fixed else "")
    parse_spec(spec)
    if not swept:
        return Plan(spec)
    name, _, values = swept[0].partition("=")
    try:
        return Plan(spec, name, tuple(int(value) for value in values.split(",")))
    except ValueError:
        raise Mt2stError(
            f"setting {text!r}: the values of {name} must be whole numbers, such as {name}=1,4,16"
        ) from None


def announced(spec: str) -> str:
    """The spec as it is printed: where it leaves the device to the index, with the one that it takes.

    Raises:
        Mt2stError: there is no such index.
    """
    if parse_spec(spec)[1].get("device") != "auto":
        return spec
    return f"{spec} (takes {create_index(spec).parameters['device']})"


def default_plans(num_items: int, width: int, gpu: bool, installed: Callable[[str], bool]) -> list[Plan]:
    """The sweep for a gallery of this size: what each backend declares, of those that are installed."""
    plans = []
    for name in backend_names():
        backend = backend_class(name)
        if (not backend.requires or installed(backend.requires)) and (gpu or not backend.on_gpu):
            plans += [parse_plan(name + setting) for setting in backend.sweep(num_items, width)]
    return plans


def measure(plan: Plan, data: SearchData, truth: Truth, protocol: Protocol) -> Iterator[Measured]:
    """Build one index, then measure each of its search-time settings.

    Raises:
        Mt2stError: the index cannot be built on these data, or returns broken ids.
    """
    gc.collect()
    reset_peak_resident()
    reset_peak_gpu()
    before, gpu_before = resident_bytes(), _gpu_used()
    index = create_index(plan.spec, **parameters_for(plan.spec, protocol.threads, data.metric))
    started = time.perf_counter()
    index.add(data.gallery)
    build_seconds = time.perf_counter() - started
    building = {
        "build_seconds": build_seconds,
        "index_bytes": float(index.index_bytes),
        "resident_before_bytes": float(before),
        "peak_resident_building_bytes": float(peak_resident_bytes()),
    }
    for knobs in plan.settings():
        if knobs:
            index.set_search_knobs(**knobs)
        measured = _one(index, plan, data, truth, protocol)
        measured.cost.update(building)
        measured.cost["peak_resident_bytes"] = float(peak_resident_bytes())
        measured.cost["peak_above_start_bytes"] = float(max(0, peak_resident_bytes() - before))
        measured.cost["gpu_bytes"] = float(max(peak_gpu_bytes(), _gpu_used() - gpu_before, 0))
        yield measured


def _one(index: VectorIndex, plan: Plan, data: SearchData, truth: Truth, protocol: Protocol) -> Measured:
    k = truth.ids.shape[1]
    _, ids = index.search(data.queries, k)  # also warms up
    check_ids(ids, len(data.gallery), index.backend)
    found = similarities(data, ids)
    quality = {
        f"ann_recall@{k}": ann_recall(ids, truth.ids),
        f"ann_recall_tolerant@{k}": tolerant_recall(found, truth.similarities, protocol.tolerance),
        f"ann_benchmarks_recall@{k}": tolerant_recall(found, truth.similarities, FIELD_TOLERANCE),
    }
    if len(data.asking) and data.metric == "cosine":
        quality.update(hits_through_index(index, data.queries, data.gallery, data.asking, data.relevant, TASK_CUTOFFS))
    batch = np.array([_seconds(index, data.queries, k) for _ in range(protocol.repetitions)])
    some = data.queries[: protocol.single_queries]
    single = np.array(
        [[_seconds(index, some[row : row + 1], k) for row in range(len(some))] for _ in range(protocol.repetitions)]
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
    label = plan.spec.partition("?")[0].replace("faiss_cpu:", "").replace("faiss_gpu:", "GPU ")
    label += f" device={index.parameters['device']}" if "device" in parse_spec(plan.spec)[1] else ""
    swept = index.parameters.get(plan.knob) if plan.knob else None
    label += f" {plan.knob}={swept}" if swept is not None else ""
    return Measured(label, plan.spec, index.parameters, quality, cost, batch, single)


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
