"""The multi-task step of the default VQA recipe, timed block by block."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cases import AUXILIARY, PRIMARY, Case
from benchmarks.suite.costs import mixture_of
from mt2st.batch import Batch
from mt2st.schedules import Constant, Schedule
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer


@dataclass(frozen=True)
class Block:
    """One timed block."""

    samples_per_second: float  # images of both streams
    flops_per_second: float


class HeldBatch:
    """A stream whose every batch is the same one, for steps without any loading."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch."""
        return self._batch


class Loop:
    """A trainer of the multi-task step, timed block by block; `schedule` is that of all auxiliaries."""

    def __init__(
        self,
        case: Case,
        *,
        threads: int = 0,
        channels_last: bool = False,
        precision: Any = "no",
        compile: bool = False,
        schedule: Schedule | None = None,
        parallel_streams: bool = False,
    ) -> None:
        self.threads = threads or torch.get_num_threads()
        experiment = case.build(0)
        if channels_last:
            experiment.encoder.to(memory_format=torch.channels_last)
        config = TrainConfig(
            total_steps=10**6,
            log_every_steps=10**6,
            precision=precision,
            compile=compile,
            parallel_streams=parallel_streams,
        )
        self.trainer = Trainer(
            experiment.encoder,
            mixture_of(experiment, lambda name: schedule or Constant()),
            experiment.streams,
            config,
            rates=experiment.tuning.rates,
        )
        self.images = sum(len(experiment.streams[name].batch(0)["pixels"]) for name in (PRIMARY, AUXILIARY))
        self.step = 0

    def losses(self, steps: int) -> list[float]:
        """Run `steps` optimiser steps; the sum of the tasks' losses at each."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        found = []
        for _ in range(steps):
            found.append(sum(float(loss.detach()) for loss in self.trainer.train_step(self.step).values()))
            self.step += 1
        torch.set_num_threads(before)
        return found

    def block(self, steps: int) -> Block:
        """Run `steps` optimiser steps."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        flops, started = self.trainer.ledger.total, time.perf_counter()
        for _ in range(steps):
            self.trainer.train_step(self.step)
            self.step += 1
        seconds = time.perf_counter() - started
        torch.set_num_threads(before)
        return Block(steps * self.images / seconds, (self.trainer.ledger.total - flops) / seconds)


def matmul_peak(threads: int, size: int = 2048, repeats: int = 6) -> float:
    """Best FLOP/s of a square fp32 product with `threads` threads."""
    torch.set_num_threads(threads)
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
