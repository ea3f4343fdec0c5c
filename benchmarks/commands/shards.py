"""shards: a part of a large gallery searched in shards; time and memory of the whole from it."""

from __future__ import annotations


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a bit differs from one index, else 0."""
    from benchmarks.search.shards import main as measure

    return measure(argv)
