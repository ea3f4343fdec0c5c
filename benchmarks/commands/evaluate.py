"""evaluate: finished models on data, without training."""

from __future__ import annotations

from benchmarks.evaluate.options import Options
from benchmarks.options import parse_dataclass


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a pair of model and data failed, else 0."""
    options = parse_dataclass(Options(), argv, prog="python -m benchmarks evaluate")
    from benchmarks.evaluate.run import run

    return run(options)
