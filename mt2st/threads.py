"""How many threads this process may use, and how many its matrix products take. Needs no torch."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

_MOST_WORKERS = 4  # beyond that they wait for Python's lock


def usable_threads() -> int:
    """Processors that this process may use, or fewer where OMP_NUM_THREADS says so."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(available, int(wish))) if wish.isdigit() else available


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
