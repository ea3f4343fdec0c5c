"""What this machine carries, and which code it runs."""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

import mt2st

ROOT = str(Path(__file__).resolve().parents[2])


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_count() -> int:
    """GPUs that torch sees here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_names() -> list[str]:
    """The GPUs of `gpu_count`, as CUDA_VISIBLE_DEVICES names them."""
    count = gpu_count()
    shown = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return shown[:count] if len(shown) >= count else [str(number) for number in range(count)]


@cache
def code_version() -> str:
    """The package's version and the first 12 hex digits of a SHA-256 over the source files of all three packages."""
    digest = sha256()
    for package in ("benchmarks", "data_prep", "mt2st"):
        for path in sorted(Path(ROOT, package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return f"{mt2st.__version__}+{digest.hexdigest()[:12]}"
