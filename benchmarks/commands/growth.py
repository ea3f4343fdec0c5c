"""growth: how seconds and memory grow with batch, image, vocabulary, auxiliaries, runs and images."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import GrowthOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if something grows faster than its work."""
    options = parse_dataclass(GrowthOptions(), argv, prog="python -m benchmarks growth")
    from benchmarks.speed.growth import measure

    return measure(options)
