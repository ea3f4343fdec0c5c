"""Run the smallest suite in a loop in one process: memory, file handles and threads must stay flat.

    python tests/integration/chaos/soak.py --minutes 30

Also one training of many steps, whose memory must not grow with the steps:

    python tests/integration/chaos/soak.py --steps 10000
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from chaos_suites import Suite, as_json

from benchmarks.suite.costs import mixture_of
from mt2st.schedules import Constant
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer


def usage() -> tuple[float, int, int]:
    """Resident memory in MiB, open files, threads."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss / 2**20, process.num_fds(), threading.active_count()


def loop(folder: Path, seconds: float) -> dict[str, Any]:
    """Suites of one strategy of each kind until the time is over; the first two warm up."""
    suite = Suite("vqa", folder / "data", steps=4, strategies=("STL", "Switch"))
    seen = []
    started = time.monotonic()
    terminal = sys.stdout
    with Path(os.devnull).open("w") as nowhere:
        while time.monotonic() - started < seconds or len(seen) < 6:
            sys.stdout = nowhere
            code = suite.run(folder / "results")
            sys.stdout = terminal
            assert code == 0
            shutil.rmtree(folder / "results")
            seen.append(usage())
    warm = seen[2:]
    half = len(warm) // 2
    first, last = (sum(item[0] for item in part) / len(part) for part in (warm[:half], warm[half:]))
    return {
        "suites": len(seen), "minutes": round((time.monotonic() - started) / 60, 2), "mib_first_half": round(first, 1),
        "mib_second_half": round(last, 1), "mib_end": round(seen[-1][0], 1),
        "files": [warm[0][1], warm[-1][1]], "threads": [warm[0][2], warm[-1][2]],
        "flat": last <= 1.02 * first + 4 and warm[-1][1] <= warm[0][1] and warm[-1][2] <= warm[0][2],
    }  # fmt: skip


def long_run(folder: Path, steps: int) -> dict[str, Any]:
    """One training of `steps` steps with logging and checkpoints; memory from a tenth of the way on."""
    suite = Suite("vqa", folder / "data", steps=steps)
    experiment = suite.case.build(0)
    seen: list[float] = []

    def on_step(step: int) -> None:
        if step % max(1, steps // 100) == 0:
            seen.append(usage()[0])

    config = TrainConfig(steps, checkpoint_every_steps=max(1, steps // 20), evaluate_every_steps=max(1, steps // 10))
    Trainer(
        experiment.encoder, mixture_of(experiment, lambda name: Constant()), experiment.streams, config,
        folder=folder / "checkpoints", validate=experiment.validate, on_step=on_step,
    ).fit()  # fmt: skip
    settled = seen[len(seen) // 10 :]
    spread = (max(settled) - min(settled)) / min(settled)
    return {
        "steps": steps, "mib_at_a_tenth": round(settled[0], 1), "mib_at_the_end": round(settled[-1], 1),
        "spread": round(spread, 4), "flat": spread <= 0.04,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--steps", type=int, default=0, help="one training of so many steps instead of the loop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = long_run(Path(folder), options.steps) if options.steps else loop(Path(folder), 60 * options.minutes)
    print(as_json(found))
    return 0 if found["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
