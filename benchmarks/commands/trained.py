"""trained: load, single answers, prediction and search of a trained model, against what was promised."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import TrainedOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a promise is broken, else 0."""
    options = parse_dataclass(TrainedOptions(), argv, prog="python -m benchmarks trained")
    from benchmarks.speed.trained import measure

    return measure(options)
