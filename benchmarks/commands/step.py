"""step: where a training step's time goes, and whether seconds show what the FLOPs of a switch save."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import StepOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a goal is missed."""
    options = parse_dataclass(StepOptions(), argv, prog="python -m benchmarks step")
    from benchmarks.speed.step import measure

    return measure(options)
