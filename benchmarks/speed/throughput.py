"""`python -m benchmarks throughput`: samples/s of the VQA recipe, its share of the matmul peak, and what each lever
does.

The limit is the machine's matrix multiplication: the peak is measured in the same run, as the best of several square
products, for each thread count. Every lever is timed in turn with the base recipe, and the ratio taken pair by pair.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """Measure training throughput of the default VQA recipe and the effect of each lever."""

    blocks: int = 6
    """pairs of blocks to time for each lever"""
    steps: int = 10
    """optimiser steps a block"""
    compile: bool = True
    """include torch.compile, which takes a minute and a C++ compiler"""
    results: Path = Path("results")
    """where the record is written"""


def main(argv: list[str]) -> int:
    """Entry point."""
    from benchmarks.options import parse_dataclass

    return measure(
        parse_dataclass(Options(), argv, prog="python -m benchmarks throughput", description=str(Options.__doc__))
    )


def measure(options: Options) -> int:
    """Time base and levers, print the table and write the record."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from benchmarks.cases.vqa.case import VqaCase
    from benchmarks.cases.vqa.knobs import RECIPES
    from benchmarks.records.machine import environment
    from mt2st.files import write_sealed_json

    console = Console()
    knobs = RECIPES["default"]
    threads = torch.get_num_threads()
    peaks = {count: matmul_peak(count) for count in sorted({1, threads})}
    torch.set_num_threads(threads)
    case = VqaCase(knobs, console)
    base = Loop(case)
    levers: dict[str, Callable[[], Loop]] = {
        "1 thread": lambda: Loop(case, threads=1),
        "batch × 2": lambda: Loop(VqaCase(scaled(knobs, 2), console)),
        "batch ÷ 2": lambda: Loop(VqaCase(scaled(knobs, 0.5), console)),
        "1 question an image": lambda: Loop(VqaCase(replace(knobs, questions_per_image=1), console)),
        "channels-last": lambda: Loop(case, channels_last=True),
        "bf16": lambda: Loop(case, precision="bf16"),
        "PNG decoded at every read": lambda: Loop(decoding_case(case)),
    }
    if options.compile:
        levers["torch.compile"] = lambda: Loop(case, compile=True)
    rows: list[dict[str, Any]] = []
    for name, make in levers.items():
        with console.status(f"timing {name}"):
            lever = make()
            pairs = [(base.block(options.steps), lever.block(options.steps)) for _ in range(options.blocks + 1)][1:]
        ratios = sorted(theirs.samples_per_second / ours.samples_per_second for ours, theirs in pairs)
        rates = sorted(block.samples_per_second for _, block in pairs)
        flops = sorted(block.flops_per_second for _, block in pairs)
        rows.append(
            {
                "lever": name,
                "ratio_to_base": ratios,
                "samples_per_second": rates,
                "flops_per_second": flops,
                "threads": lever.threads,
            }
        )
        rows[-1]["base"] = [vars(ours) for ours, _ in pairs]
    every = sorted((block["samples_per_second"], block["flops_per_second"]) for row in rows for block in row["base"])
    base_rate, base_flops = every[len(every) // 2]
    share = base_flops / peaks[threads]
    table = Table(
        title=f"base: {base_rate:.0f} images/s, {base_flops / 1e9:.1f} GFLOP/s = {share:.0%} of the matmul peak"
    )
    for heading in ("lever", "images/s ÷ base (min … max)", "images/s", "GFLOP/s", "of peak"):
        table.add_column(heading)
    for row in rows:
        ratios, flops = row["ratio_to_base"], row["flops_per_second"]
        middle = len(ratios) // 2
        table.add_row(
            row["lever"],
            f"{ratios[middle]:.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})",
            f"{row['samples_per_second'][middle]:.0f}",
            f"{flops[middle] / 1e9:.1f}",
            f"{flops[middle] / peaks[row['threads']]:.0%}",
        )
    console.print(table)
    for count, peak in peaks.items():
        console.print(f"matmul peak, {count} thread{'s' if count > 1 else ''}: {peak / 1e9:.0f} GFLOP/s")
    path = options.results / "throughput" / "throughput.json"
    write_sealed_json(
        path,
        {
            **environment(),
            "matmul_peak_flops_per_second": {str(key): peak for key, peak in peaks.items()},
            "levers": rows,
        },
    )
    console.print(f"record: {path}")
    return 0


@dataclass(frozen=True)
class Block:
    """One timed block."""

    samples_per_second: float  # images of both streams
    flops_per_second: float


class Loop:
    """A trainer of the multi-task step, timed block by block."""

    def __init__(
        self, case: Any, *, threads: int = 0, channels_last: bool = False, precision: Any = "no", compile: bool = False
    ) -> None:
        import torch

        from benchmarks.cases import AUXILIARY, PRIMARY
        from benchmarks.suite.costs import mixture_of
        from mt2st.schedules import Constant
        from mt2st.training.trainer import TrainConfig, Trainer

        self.threads = threads or torch.get_num_threads()
        experiment = case.build(0)
        if channels_last:
            experiment.encoder.to(memory_format=torch.channels_last)
        config = TrainConfig(total_steps=10**6, log_every_steps=10**6, precision=precision, compile=compile)
        self.trainer = Trainer(
            experiment.encoder, mixture_of(experiment, lambda name: Constant()), experiment.streams, config
        )
        self.images = sum(len(experiment.streams[name].batch(0)["pixels"]) for name in (PRIMARY, AUXILIARY))
        self.step = 0

    def block(self, steps: int) -> Block:
        """Run `steps` optimiser steps."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        flops, started = self.trainer.ledger.total, time.perf_counter()
        for _ in range(steps):
            self.trainer.train_step(self.step)
            self.step += 1
        seconds = time.perf_counter() - started
        torch.set_num_threads(before)
        return Block(steps * self.images / seconds, (self.trainer.ledger.total - flops) / seconds)


def scaled(knobs: Any, factor: float) -> Any:
    """The knobs with both batches `factor` times as large."""
    return replace(
        knobs,
        images_per_batch=int(knobs.images_per_batch * factor),
        caption_images_per_batch=int(knobs.caption_images_per_batch * factor),
    )


def decoding_case(case: Any) -> Any:
    """The case on a store that keeps the original PNG bytes and decodes them at every read."""
    import numpy as np
    from rich.console import Console

    from benchmarks.cases.vqa.case import VqaCase
    from data_prep.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        path = prepare(case.knobs.data, out=folder, image_size=case.knobs.image_size, store="encoded")
        decoding = VqaCase(replace(case.knobs, data=str(path)), Console(quiet=True))
        for split in (decoding.labelled, decoding.train):
            split.pixels(np.arange(2))  # opens the memory map, which then outlives the folder
        return decoding


def matmul_peak(threads: int, size: int = 2048, repeats: int = 6) -> float:
    """Best FLOP/s of a square fp32 product with `threads` threads."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
