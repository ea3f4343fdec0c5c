"""overhead: our training loop against a bare hand-written one."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.speed.options import OverheadOptions


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a promise is broken, else 0."""
    options = parse_dataclass(OverheadOptions(), argv, prog="python -m benchmarks overhead")
    from benchmarks.speed.overhead import measure

    return measure(options)
