"""throughput: samples a second, and the share of the machine's measured peak."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import ThroughputOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 0."""
    options = parse_dataclass(ThroughputOptions(), argv, prog="python -m benchmarks throughput")
    from benchmarks.speed.throughput import measure

    return measure(options)
