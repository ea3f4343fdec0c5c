"""scale: one suite made one run after the other, side by side, and on Ray; time, memory, equal bits."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import ScaleOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if the ways differ in a bit or a promise is broken, else 0."""
    options = parse_dataclass(ScaleOptions(), argv, prog="python -m benchmarks scale")
    from benchmarks.speed.scale import measure

    return measure(options)
