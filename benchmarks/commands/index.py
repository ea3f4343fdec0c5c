"""index: search efficiency of an embedding set, exact and approximate."""

from benchmarks.search.command import main

__all__ = ["main"]
