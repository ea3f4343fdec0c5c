"""data: preparing and reading data against the machine's limits."""

from benchmarks.speed.data import main

__all__ = ["main"]
