"""What this machine carries, and which code it runs."""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

import mt2st
from benchmarks.records.machine import resident_bytes
from benchmarks.suite.engines import Needs

ROOT = str(Path(__file__).resolve().parents[2])
_KEPT_FREE = 0.2  # share of the free memory that no run is given


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_count() -> int:
    """GPUs that torch sees here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def needs_of(threads: int, jobs_per_device: int) -> Needs:
    """What a run takes, judged by this process, which has the data open and has made a step."""
    return Needs(threads, 1 / jobs_per_device if gpu_count() else 0.0, resident_bytes())


def slots_here(needs: Needs, jobs_per_device: int, most: int) -> int:
    """Runs that this machine carries side by side, at least 1 and at most `most`: by GPUs, or by cores, and memory."""
    import psutil

    by_cores = gpu_count() * jobs_per_device or usable_cores() // needs.threads
    free = psutil.virtual_memory().available * (1 - _KEPT_FREE)
    by_memory = int(free // needs.memory_bytes) if needs.memory_bytes else by_cores
    return max(1, min(by_cores, by_memory, most))


@cache
def code_version() -> str:
    """The package's version and the first 12 hex digits of a SHA-256 over the source files of all three packages."""
    digest = sha256()
    for package in ("benchmarks", "data_prep", "mt2st"):
        for path in sorted(Path(ROOT, package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return f"{mt2st.__version__}+{digest.hexdigest()[:12]}"
