"""What is measured of one search setting, and which settings are swept.

The harness grades: an index reports nothing of itself.

Quality is computed here from the ids that come back: their similarities anew in float64, their overlap with exact
search, and the task's own hit rate. Times are wall times of repetitions that are all kept; mean and percentiles come
from the same ones.
"""

from __future__ import annotations

import gc
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
from mt2st.errors import Mt2stError
from mt2st.evaluate import check_ids, hits_through_index
from mt2st.index import VectorIndex, create_index, parse_spec

TASK_CUTOFFS = (1, 5, 10)
# Codes a vector that FAISS has GPU kernels for: more than 48 tables of 256 float32 do not fit into 48 KiB of shared
# memory.
GPU_CODES = (48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)
# Dimensions a code that FAISS's GPU kernels take without precomputed tables; 1 would be no compression.
GPU_CODE_DIMENSIONS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32)
_PAIRS_AT_ONCE = 1 << 20

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


@dataclass(frozen=True)
class Truth:
    """Exact search: ids and float64 similarities [Q, k] of the k best."""

    ids: Ints
    similarities: Doubles


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
    """The sweep for a gallery of this size: every kind of index that is installed, with its search-time knob.

    Inverted files get about √N lists, a power of two; product quantisers the finest split with at least 2 dimensions a
    code, if there are the 256 items that their codebooks need ("np": without FAISS's polysemous training, 20 s for
    4,000 items). On a GPU the finest split that FAISS has a kernel for; a width that allows none, such as a prime one,
    goes without.
    """
    lists = 1 << max(0, round(np.log2(max(1.0, num_items**0.5))))
    probes = tuple(value for value in (1, 2, 4, 8, 16, 32, 64) if value <= lists)
    codes = next((count for count in range(width // 2, 0, -1) if width % count == 0), 1)
    plans = [Plan("exact?device=auto")]
    if installed("faiss"):
        plans += [Plan("faiss_cpu:Flat"), Plan(f"faiss_cpu:IVF{lists},Flat", "nprobe", probes)]
        plans += [Plan(f"faiss_cpu:IVF{lists},PQ{codes}np", "nprobe", probes)] if num_items >= 256 else []
        plans += [Plan("faiss_cpu:HNSW32", "ef_search", (16, 32, 64, 128, 256)), Plan("faiss_cpu:SQ8")]
    if gpu and installed("faiss"):
        plans += [Plan("faiss_gpu:Flat"), Plan(f"faiss_gpu:IVF{lists},Flat", "nprobe", probes)]
        codes = next((count for count in GPU_CODES if width % count == 0 and width // count in GPU_CODE_DIMENSIONS), 0)
        plans += [Plan(f"faiss_gpu:IVF{lists},PQ{codes}np", "nprobe", probes)] if codes and num_items >= 256 else []
        plans += [Plan("faiss_gpu:CAGRA")]
    plans += [Plan(name, "ef_search", (16, 32, 64, 128, 256)) for name in ("hnswlib", "usearch") if installed(name)]
    return plans


def exact_truth(data: SearchData, k: int) -> Truth:
    """The k best of every query by exact search, similarities computed anew in float64."""
    index = create_index("exact")
    index.add(data.gallery)
    _, ids = index.search(data.queries, min(k, len(data.gallery)))
    return Truth(ids, similarities(data, ids))


def similarities(data: SearchData, ids: Ints) -> Doubles:
    """float64 cosines [Q, k] of returned ids; −∞ for id −1."""
    result = np.full(ids.shape, -np.inf)
    rows = max(1, _PAIRS_AT_ONCE // (ids.shape[1] * data.gallery.shape[1]))
    for start in range(0, len(ids), rows):
        part = ids[start : start + rows]
        items = data.gallery[part].astype(np.float64)  # [b, k, E]; id −1 takes the last row and is masked below
        queries = data.queries[start : start + rows].astype(np.float64)
        dots = np.einsum("qe,qke->qk", queries, items)
        lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(items, axis=2)
        result[start : start + rows] = np.where(part >= 0, dots / lengths, -np.inf)
    return result


def ann_recall(ids: Ints, truth: Ints) -> float:
    """Mean over queries of |ids ∩ truth| / k, as sets; both [Q, k] with distinct ids a row, −1 never counting."""
    # Shifting each row to its own range of numbers turns a row-wise intersection into one sorted search.
    span = int(max(ids.max(initial=0), truth.max(initial=0))) + 2
    offset = np.arange(len(ids))[:, None] * span
    return float(np.isin(np.where(ids >= 0, ids + offset, -1), truth + offset).sum() / truth.size)


def tolerant_recall(found: Doubles, truth: Doubles, tolerance: float) -> float:
    """Mean over queries of the share of k returned similarities that are at least the exact k-th less `tolerance`."""
    return float((found >= truth[:, -1:] - tolerance).mean())


def measure(plan: Plan, data: SearchData, truth: Truth, protocol: Protocol) -> Iterator[Measured]:
    """Build one index, then measure each of its search-time settings.

    Raises:
        Mt2stError: the index cannot be built on these data, or returns broken ids.
    """
    gc.collect()
    reset_peak_resident()
    reset_peak_gpu()
    before, gpu_before = resident_bytes(), _gpu_used()
    index = create_index(plan.spec, **_threads_for(plan.spec, protocol.threads))
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
    quality = {
        f"ann_recall@{k}": ann_recall(ids, truth.ids),
        f"ann_recall_tolerant@{k}": tolerant_recall(similarities(data, ids), truth.similarities, protocol.tolerance),
    }
    if len(data.asking):
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


def _threads_for(spec: str, threads: int) -> dict[str, int]:
    """The parameter `threads`, for backends that run on processors and have not been given it."""
    name, given = parse_spec(spec)
    return {"threads": threads} if threads and "gpu" not in name and "threads" not in given else {}


def _gpu_used() -> int:
    """Bytes in use on the GPU by anyone, which is the only number that includes FAISS's own; 0 without CUDA."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return int(total - free)
