"""`python -m benchmarks throughput`: samples a second of the VQA recipe, and what each lever does.

The limit is the machine's matrix multiplication: the peak is measured in the same run, as the best of several square
products, for each thread count. Every lever is timed in turn with the base recipe, and the ratio taken pair by pair.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.cases.vqa.case import VqaCase
from benchmarks.cases.vqa.knobs import RECIPES, Knobs
from benchmarks.records.machine import environment
from benchmarks.report.text_table import TextTable, print_tables
from benchmarks.speed.loop import Loop, matmul_peak
from benchmarks.speed.options import ThroughputOptions
from data_prep.prepare import prepare
from mt2st.files import write_sealed_json


def measure(options: ThroughputOptions) -> int:
    """Time base and levers, print the table and write the record; returns 0."""
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
    rows = []
    for name, make in levers.items():
        with console.status(f"timing {name}"):
            rows.append(_timed(name, base, make(), options))
    every = sorted((block["samples_per_second"], block["flops_per_second"]) for row in rows for block in row["base"])
    base_rate, base_flops = every[len(every) // 2]
    print_tables([_table(rows, peaks)], console)
    console.print(
        f"base: {base_rate:.0f} images/s, {base_flops / 1e9:.1f} GFLOP/s = {base_flops / peaks[threads]:.0%} of the "
        "matmul peak"
    )
    for count, peak in peaks.items():
        console.print(f"matmul peak, {count} thread{'s' if count > 1 else ''}: {peak / 1e9:.0f} GFLOP/s")
    path = options.results / "throughput" / "throughput.json"
    shown = {str(count): peak for count, peak in peaks.items()}
    write_sealed_json(path, {**environment(), "matmul_peak_flops_per_second": shown, "levers": rows})
    console.print(f"record: {path}")
    return 0


def _timed(name: str, base: Loop, lever: Loop, options: ThroughputOptions) -> dict[str, Any]:
    """A lever's blocks against the base's, in turn; the first pair warms up."""
    pairs = [(base.block(options.steps), lever.block(options.steps)) for _ in range(options.blocks + 1)][1:]
    return {
        "lever": name,
        "ratio_to_base": sorted(theirs.samples_per_second / ours.samples_per_second for ours, theirs in pairs),
        "samples_per_second": sorted(block.samples_per_second for _, block in pairs),
        "flops_per_second": sorted(block.flops_per_second for _, block in pairs),
        "threads": lever.threads,
        "base": [vars(ours) for ours, _ in pairs],
    }


def _table(rows: list[dict[str, Any]], peaks: dict[int, float]) -> TextTable:
    body = []
    for row in rows:
        ratios, flops = row["ratio_to_base"], row["flops_per_second"]
        middle = len(ratios) // 2
        cells = (
            row["lever"],
            f"{ratios[middle]:.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})",
            f"{row['samples_per_second'][middle]:.0f}",
            f"{flops[middle] / 1e9:.1f}",
            f"{flops[middle] / peaks[row['threads']]:.0%}",
        )
        body.append(cells)
    head = ("lever", "images/s ÷ base (min … max)", "images/s", "GFLOP/s", "of peak")
    return TextTable("Throughput of the default VQA step", head, tuple(body))


def scaled(knobs: Knobs, factor: float) -> Knobs:
    """The knobs with both batches `factor` times as large."""
    return replace(
        knobs,
        images_per_batch=int(knobs.images_per_batch * factor),
        caption_images_per_batch=int(knobs.caption_images_per_batch * factor),
    )


def decoding_case(case: VqaCase) -> VqaCase:
    """The case on a store that keeps the original PNG bytes and decodes them at every read."""
    with tempfile.TemporaryDirectory() as folder:
        path = prepare(case.knobs.data, out=folder, image_size=case.knobs.image_size, store="encoded")
        decoding = VqaCase(replace(case.knobs, data=str(path)), Console(quiet=True))
        for split in (decoding.labelled, decoding.train):
            split.pixels(np.arange(2))  # opens the memory map, which then outlives the folder
        return decoding
