"""`python -m benchmarks data`: preparing and reading data against the machine's limits, all in one run.

Three promises are measured:
  prepare   ≥ 80 % of the machine's decode limit with 2 processes. The limit is a bare loop in 2 processes that reads,
            decodes and resizes the same files and keeps nothing; both are timed in turn, process start included.
  reading   batches from the store at ≥ 10 × what the default recipe's trainer consumes, and ≥ 5 × a
            `torch.utils.data.DataLoader` (2 workers, warmed up) over the same image files.
  memory    the peak of preparing 100 times as many images is that of a hundredth, up to fixed caches (≤ 64 MB more).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.cases.vqa.case import VqaCase
from benchmarks.cases.vqa.knobs import RECIPES
from benchmarks.records.machine import environment
from benchmarks.speed.decoding import draw_photos, measure_decoding
from benchmarks.speed.loop import Loop
from benchmarks.speed.memory import measure_memory
from benchmarks.speed.options import DataOptions
from benchmarks.speed.reading import measure_reading
from mt2st.files import write_sealed_json

_MEMORY_LIMIT_MB = 64


def measure(options: DataOptions) -> int:
    """Measure, print and write the record; returns 0 if all promises hold, else 1."""
    console = Console()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with console.status("drawing photos"):
            draw_photos(folder / "photos", options.images)
        with console.status("decoding"):
            decoding = measure_decoding(
                folder, image_size=options.image_size, rounds=options.rounds, workers=options.workers
            )
        with console.status("reading"):
            case = VqaCase(RECIPES["default"], console)
            split = case.train.dataset.split("train")
            reading = measure_reading(split, Loop(case), options.batch_size, options.workers)
        with console.status("memory"):
            memory = measure_memory(folder, options.memory_images)
    share, trainer, loader = decoding["share_of_limit"], reading["ratio_to_trainer"], reading["ratio_to_data_loader"]
    (few, many), (small, large) = memory["images"], memory["peak_mb"]
    path = options.results / "data" / "data.json"
    knobs = {name: value for name, value in vars(options).items() if name != "results"}
    write_sealed_json(
        path, {**environment(), "options": knobs, "decoding": decoding, "reading": reading, "memory": memory}
    )
    console.print(
        f"prepare: {decoding['prepare_images_per_second']:.0f} images/s = {share:.0%} of the bare decode loop's "
        f"{decoding['bare_images_per_second']:.0f} ({options.workers} processes, median of {options.rounds} pairs); "
        "promised ≥ 80 %\n"
        f"reading: {reading['store_images_per_second']:,.0f} images/s = {trainer:.0f} × the trainer's "
        f"{reading['trainer_images_per_second']:,.0f} (promised ≥ 10) and {loader:.0f} × a DataLoader's "
        f"{reading['data_loader_images_per_second']:,.0f} (promised ≥ 5)\n"
        f"memory: peak {small:.0f} MB for {few:,} images, {large:.0f} MB for {many:,}; promised ≤ {_MEMORY_LIMIT_MB} "
        f"MB more\nrecord: {path}",
        highlight=False,
    )
    return 0 if share >= 0.8 and trainer >= 10 and loader >= 5 and large - small <= _MEMORY_LIMIT_MB else 1
