"""index: search efficiency of an embedding set, exact and approximate."""

from __future__ import annotations

from benchmarks.options import parse_dataclass
from benchmarks.search.options import Options


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a setting could not be measured, else 0."""
    options = parse_dataclass(Options(), argv, prog="python -m benchmarks index")
    from benchmarks.search.run import run

    return run(options)
