"""A line on stderr that says how far long work is, and how long it will take."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_EVERY_SECONDS = 0.5


class Progress:
    """`with Progress(total, "answers") as progress: progress.add(n)`; on a terminal the line is drawn over itself.

    Elsewhere nothing is drawn but the last line: items, seconds, items a second.
    """

    def __init__(self, total: int, items: str) -> None:
        self.total, self.items, self.done = total, items, 0
        self._started = self._drawn = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def add(self, count: int) -> None:
        """Another `count` items are done."""
        self.done += count
        now = time.monotonic()
        if self._terminal and now - self._drawn > _EVERY_SECONDS:
            self._drawn = now
            rate = self.done / (now - self._started)
            left = (self.total - self.done) / rate if rate else 0.0
            sys.stderr.write(f"\r{self.done:,} of {self.total:,} {self.items}, {rate:,.0f}/s, {left:,.0f} s left\x1b[K")
            sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._started
        clear = "\r\x1b[K" if self._terminal else ""
        rate = f", {self.done / seconds:,.0f}/s" if self.done and seconds else ""
        sys.stderr.write(f"{clear}{self.done:,} {self.items} in {seconds:,.1f} s{rate}\n")
