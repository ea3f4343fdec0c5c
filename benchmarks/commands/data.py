"""data: preparing and reading data against the machine's limits."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import DataOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a promise is broken, else 0."""
    options = parse_dataclass(DataOptions(), argv, prog="python -m benchmarks data")
    from benchmarks.speed.data import measure

    return measure(options)
