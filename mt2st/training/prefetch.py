"""Making a stream's next batches in threads, while the current step trains.

A stream's batch depends on its index alone, so workers have no state to save, and which of them makes a batch cannot
change it. It pays where making a batch is dear (encoded images are decoded at every read, which releases Python's
lock), not for memory-mapped pixels.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch

from mt2st.batch import Batch
from mt2st.errors import Mt2stError


class _Source(Protocol):
    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch: ...


class Prefetched:
    """A stream with the same batches as `source`, of which the next `workers` are made ahead, each by a thread.

    Memory grows by `workers` batches. An error of a worker is raised, as it is, by the call that asks for its batch.

    Raises:
        Mt2stError: fewer than 1 worker.
    """

    def __init__(self, source: _Source, workers: int) -> None:
        if workers < 1:
            raise Mt2stError(f"workers = {workers} must be ≥ 1; without workers use the stream itself")
        self.source, self.workers = source, workers
        self._pool = ThreadPoolExecutor(
            workers, thread_name_prefix="batches"
        )  # its threads end when this stream is dropped
        self._ahead: dict[tuple[int, int, int], Future[Batch]] = {}

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch `index`, as `source` would make it."""
        wanted = [(later, rank, world) for later in range(index, index + self.workers + 1)]
        for passed in self._ahead.keys() - set(wanted):
            self._ahead.pop(passed).cancel()
        ready = self._ahead.pop(wanted[0], None)
        for key in wanted[1:]:
            if key not in self._ahead:
                self._ahead[key] = self._pool.submit(self._made, *key)
        return self._made(*wanted[0]) if ready is None else ready.result()

    def _made(self, index: int, rank: int, world: int) -> Batch:
        """The batch, in pinned memory where there is a GPU, so that it goes there while the step before it runs."""
        batch = self.source.batch(index, rank, world)
        if not torch.cuda.is_available():
            return batch
        return {name: tensor if tensor.is_cuda else tensor.pin_memory() for name, tensor in batch.items()}
