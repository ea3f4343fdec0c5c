"""gpu: whether a GPU does what the CPU does, and how fast; without one a dry run of the same code."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import GpuOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a check failed or a goal was missed."""
    options = parse_dataclass(GpuOptions(), argv, prog="python -m benchmarks gpu")
    from benchmarks.speed.gpu import measure

    return measure(options)
