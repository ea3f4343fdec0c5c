"""frozen: what it saves to run a frozen tower once for all runs of a suite."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import FrozenOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if the scores differ."""
    options = parse_dataclass(FrozenOptions(), argv, prog="python -m benchmarks frozen")
    from benchmarks.speed.frozen import measure

    return measure(options)
