"""How many threads this process may use, and how many its matrix products take. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

_MOST_WORKERS = 4  # beyond that they wait for Python's lock


def usable_threads() -> int:
    """Processors that this process may use, or fewer where OMP_NUM_THREADS says so."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(available, int(wish))) if wish.isdigit() else available


@contextmanager
def computing_threads(threads: int) -> Iterator[None]:
    """torch, matrix libraries and this package take so many threads inside the block, libraries loaded there too.

    Sums are rounded differently with another number, so a run that must give the same bits everywhere sets it.
    """
    import torch

    before, own = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        with _libraries().limit(limits=threads):
            yield
    finally:
        torch.set_num_threads(own)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def split_threads(threads: int, pieces: int) -> tuple[int, int]:
    """Workers, each with matrix products of its own, and threads of each one's products, for work in `pieces`.

    Whole pieces side by side need no barrier inside a product, and one worker's product overlaps another's bookkeeping.
    """
    workers = max(1, min(threads, pieces, _MOST_WORKERS))
    return workers, max(1, threads // workers)


def product_threads(threads: int) -> AbstractContextManager[Any]:
    """A context in which each matrix product of this process takes so many threads."""
    return _libraries().limit(limits=threads, user_api="blas")


@cache
def _libraries() -> Any:
    """The matrix libraries of this process; found once, for looking takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
