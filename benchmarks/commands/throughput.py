"""throughput: samples a second, and the share of the machine's measured peak."""

from benchmarks.speed.throughput import main

__all__ = ["main"]
