"""overhead: our training loop against a bare hand-written one."""

from benchmarks.speed.overhead import main

__all__ = ["main"]
