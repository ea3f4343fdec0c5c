"""The same function on many pieces, in worker processes. Needs no torch.

    for piece, result in side_by_side(work, pieces, workers=4):
        ...

Workers are spawned, so `work` is a function of a module, and a script that calls this has an
`if __name__ == "__main__":`. A worker opens what it needs by itself and may keep it for the next piece (`lru_cache`).
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from mt2st.errors import Mt2stError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_number = 0


class WorkerDiedError(Mt2stError):
    """A worker process ended without a word: killed, or for want of memory."""


def worker_number() -> int:
    """Which worker this process is, from 0; 0 also in a process that is none."""
    return _number


def side_by_side(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], workers: int, threads: int = 1
) -> Generator[tuple[Piece, Result], None, None]:
    """Each piece with its result, in the order in which they end.

    One worker is this process itself. When the caller stops early, pieces in work are finished and the others dropped.

    Args:
        work: gets one piece; both it and its result can be pickled.
        pieces: what to work on.
        workers: processes, at least 1; no more are started than there are pieces.
        threads: that the libraries of a worker process start with.

    Raises:
        WorkerDiedError: a worker process ended without a word; errors of `work` come through as they are.
    """
    if workers < 1:
        raise Mt2stError(f"workers = {workers} must be ≥ 1")
    workers = min(workers, len(pieces))
    if workers <= 1:
        for piece in pieces:
            yield piece, work(piece)
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    others = set(multiprocessing.active_children())
    with _started_with(threads):
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(numbers,))
        try:
            futures = _submitted(pool, work, pieces)
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        except BrokenProcessPool:
            # The pool ends its workers when one dies, but not one that it was just starting, for which it waits then.
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise WorkerDiedError(
                f"one of {workers} worker processes ended without a word, perhaps for want of memory; take fewer "
                "(in a script of your own, call this below `if __name__ == '__main__':`)"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, work: Callable[[Piece], Result], pieces: Sequence[Piece]
) -> dict[Future[Result], Piece]:
    """Each piece's future. A worker is started with each, so one that dies may do so meanwhile.

    Raises:
        BrokenProcessPool: one died.
    """
    try:
        return {pool.submit(work, piece): piece for piece in pieces}
    except OSError as error:
        if error.errno not in (None, errno.EPIPE):  # the system has no room for a process
            raise
        raise BrokenProcessPool(str(error)) from None  # the pool, or the worker itself, closed a pipe while it started
    except ValueError as error:  # the same, and the number of the closed pipe was given out again at once
        if "fds_to_keep" not in str(error):
            raise
        raise BrokenProcessPool(str(error)) from None


@contextmanager
def _started_with(threads: int) -> Iterator[None]:
    """Processes that are started inside find the libraries' variables set to so many threads."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(numbers: Any) -> None:
    """Take a number; leave Ctrl-C to the parent; end when the parent ends."""
    global _number
    _number = numbers.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def outlive_nobody() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=outlive_nobody, daemon=True).start()
