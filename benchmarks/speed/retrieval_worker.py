"""One measurement in a process of its own, so that its peak memory is its own.

    python -m benchmarks.speed.retrieval_worker TASK JSON

Prints one JSON object as its last line. Called by `python -m benchmarks peers retrieval`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.records.machine import peak_resident_bytes, reset_peak_resident, resident_bytes

CUTOFFS = (1, 5, 10)
Floats = NDArray[np.float32]


def embeddings(
    images: int, texts: int, width: int, noise: float, seed: int
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Normal image vectors, and for each about as many texts: its vector plus `noise` times a normal one."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((images, width), dtype=np.float32)
    owner = np.sort(np.arange(texts) % images)
    text = rng.standard_normal((texts, width), dtype=np.float32)
    text *= noise
    text += image[owner]
    return image, text, owner


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    """Result, wall seconds and peak memory above the start of `work`."""
    reset_peak_resident()
    before = resident_bytes()
    started = time.perf_counter()
    value = work()
    seconds = time.perf_counter() - started
    return {"value": value, "seconds": seconds, "peak_bytes": max(0, peak_resident_bytes() - before)}


def ours(images: int, texts: int, width: int, noise: float, seed: int) -> dict[str, Any]:
    """`evaluate_retrieval`: once for memory and for the time beside theirs, twice more beside the bare product."""
    # Imported when first used; theirs is imported before the clock starts, too.
    import mt2st.metrics.counting  # noqa: F401
    from mt2st.evaluate import evaluate_retrieval

    arrays = embeddings(images, texts, width, noise, seed)
    _warm_up(width)
    first = measured(lambda: evaluate_retrieval(*arrays, ks=CUTOFFS))
    again = [_timed(lambda: evaluate_retrieval(*arrays, ks=CUTOFFS)) for _ in range(2)]
    return {**first, "best_of_three_seconds": min(first["seconds"], *again)}


def theirs(images: int, texts: int, width: int, noise: float, seed: int, batch: int = 64) -> dict[str, Any]:
    """CLIP_benchmark's own evaluation function, fed the same embeddings in batches of images with all their texts.

    Its model is a table of the given vectors, its tokenizer reads a text's number; automatic mixed precision is off.
    """
    import torch
    from clip_benchmark.metrics import zeroshot_retrieval

    image, text, owner = embeddings(images, texts, width, noise, seed)
    image_rows, text_rows = torch.from_numpy(image), torch.from_numpy(text)
    first = np.searchsorted(owner, np.arange(images + 1))

    class Table:
        @staticmethod
        def encode_image(rows: Any) -> Any:
            return rows

        @staticmethod
        def encode_text(numbers: Any) -> Any:
            return text_rows[numbers]

    class Batches:
        def __iter__(self) -> Iterator[tuple[Any, list[list[str]]]]:
            for start in range(0, images, batch):
                stop = min(start + batch, images)
                yield (
                    image_rows[start:stop],
                    [[str(j) for j in range(first[i], first[i + 1])] for i in range(start, stop)],
                )

        def __len__(self) -> int:
            return -(-images // batch)

    def numbers(words: list[str]) -> Any:
        return torch.tensor([int(word) for word in words])

    def work() -> Any:
        return zeroshot_retrieval.evaluate(Table, Batches(), numbers, "cpu", amp=False, recall_k_list=list(CUTOFFS))

    _warm_up(width)
    with open("/dev/null", "w") as nowhere, redirect_stderr(nowhere):  # its progress bar  # noqa: PTH123
        return measured(work)


def product(images: int, texts: int, width: int, noise: float, seed: int) -> dict[str, Any]:
    """The one product that is unavoidable, texts × images, by NumPy and by torch, the best of three each."""
    import torch

    image, text, _ = embeddings(images, texts, width, noise, seed)
    out = np.empty((texts, images), np.float32)
    out_tensor, image_tensor, text_tensor = (torch.from_numpy(array) for array in (out, image, text))
    seconds = {}
    for name, work in (
        ("numpy", lambda: np.matmul(text, image.T, out=out)),
        ("torch", lambda: torch.mm(text_tensor, image_tensor.T, out=out_tensor)),
    ):
        work()
        seconds[name] = min(_timed(work) for _ in range(3))
    return {"value": seconds, "seconds": min(seconds.values()), "peak_bytes": 0}


def peak(size: int = 4096) -> dict[str, Any]:
    """The machine's float32 product rate: the best of five of each library, square matrices of `size`."""
    import torch

    left, right = (np.random.default_rng(seed).standard_normal((size, size), dtype=np.float32) for seed in (0, 1))
    out = np.empty((size, size), np.float32)
    tensors = [torch.from_numpy(array) for array in (left, right, out)]
    rates = {}
    for name, work in (
        ("numpy", lambda: np.matmul(left, right, out=out)),
        ("torch", lambda: torch.mm(tensors[0], tensors[1], out=tensors[2])),
    ):
        work()
        rates[name] = 2 * size**3 / min(_timed(work) for _ in range(5))
    return {"value": rates, "flops_per_second": max(rates.values())}


def exact(items: int, queries: int, width: int, k: int, seconds: float, seed: int) -> dict[str, Any]:
    """Exact search of as many of the `queries` as take `seconds`.

    All are held in memory, as a whole run would hold them.
    """
    from mt2st.index import create_index

    reset_peak_resident()
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((items, width), dtype=np.float32)
    asked = rng.standard_normal((queries, width), dtype=np.float32)
    results = np.zeros((queries, k), np.float32), np.zeros((queries, k), np.int64)
    for result in results:
        result.fill(1)  # resident, as a whole run's results are
    index = create_index("exact")
    index.add(gallery)
    step = min(queries, 4096)
    index.search(asked[:step], k)
    done, spent = 0, 0.0
    while spent < seconds or not done:
        start = done % queries
        part = asked[start : start + step]
        started = time.perf_counter()
        scores, ids = index.search(part, k)
        spent += time.perf_counter() - started
        results[0][start : start + len(part)], results[1][start : start + len(part)] = scores, ids
        done += len(part)
    return {
        "queries_measured": done,
        "seconds": spent,
        "flops_per_second": 2 * done * items * width / spent,
        "whole_run_seconds": spent * queries / done,
        "peak_resident_bytes": peak_resident_bytes(),
    }


def faiss(
    factory: str, knobs: dict[str, int], items: int, queries: int, width: int, k: int, pairs: int, seed: int
) -> dict[str, Any]:
    """Our FAISS backend against direct calls: the same index searched in turn both ways, and both builds."""
    import faiss as direct

    from mt2st.index import create_index
    from mt2st.vectors import unit_rows

    rng = np.random.default_rng(seed)
    gallery, asked = (
        unit_rows("vectors", rng.standard_normal((count, width), dtype=np.float32)) for count in (items, queries)
    )
    index = create_index("faiss_cpu", factory=factory, **knobs)
    started = time.perf_counter()
    index.add(gallery)
    build_ours = time.perf_counter() - started
    bare = direct.index_factory(width, factory, direct.METRIC_INNER_PRODUCT)
    inverted = direct.try_extract_index_ivf(bare)
    if inverted is not None:
        inverted.nprobe = knobs.get("nprobe", 1)
        inverted.cp.seed, inverted.cp.min_points_per_centroid = 1234, 1
    started = time.perf_counter()
    bare.train(gallery)
    bare.add(gallery)
    build_direct = time.perf_counter() - started
    same = bool((bare.search(asked[:100], k)[1] == index.search(asked[:100], k)[1]).all())
    inner = getattr(index, "_index")  # noqa: B009  # the very index that ours searches, so that both see the same memory
    ways = {
        "ours": lambda: index.search(asked, k),
        "direct": lambda: inner.search(asked, k),
        "control": lambda: inner.search(asked, k),
    }
    orders = tuple(permutations(ways))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(pairs + 1):
        for name in orders[turn % len(orders)]:
            spent = _timed(ways[name])
            if turn:  # the first turn warms up
                seconds[name].append(spent)
    return {"seconds": seconds, "build_seconds": {"ours": build_ours, "direct": build_direct}, "same_ids": same}


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _warm_up(width: int) -> None:
    """Start the libraries' threads and buffers before the memory and time of the real thing are taken."""
    import torch

    small = np.ones((256, width), np.float32)
    np.matmul(small, small.T)
    tensor = torch.from_numpy(small)
    (tensor @ tensor.T).topk(5, dim=1)


TASKS = {task.__name__: task for task in (ours, theirs, product, peak, exact, faiss)}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))) + "\n")
