"""How far the embedding of a set is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from benchmarks.embeddings.shards import Shard

LINE_SECONDS = 10.0  # between lines, where there is no terminal


class ShardProgress:
    """`with ShardProgress(…) as progress:`, then `progress.done(shard, seconds)` for each.

    Images and texts take different times a row, so each kind's rest is estimated at its own pace.

    Args:
        shards: all that are to be made.
        jobs: how many are made at a time.
    """

    def __init__(self, shards: list[Shard], jobs: int, console: Console) -> None:
        self.jobs, self.console = jobs, console
        self.left = {kind: sum(s.stop - s.start for s in shards if s.kind == kind) for kind in ("images", "texts")}
        self.total = sum(self.left.values())
        self.busy = dict.fromkeys(self.left, 0.0)
        self.made = dict.fromkeys(self.left, 0)
        self._said = time.monotonic()
        columns = (TextColumn("embedding"), BarColumn(), TextColumn("{task.fields[words]}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("embedding", total=self.total, words="")

    def __enter__(self) -> ShardProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def done(self, shard: Shard, seconds: float) -> None:
        """Count a shard that took so many seconds of its process."""
        rows = shard.stop - shard.start
        self.left[shard.kind] -= rows
        self.made[shard.kind] += rows
        self.busy[shard.kind] += seconds
        self._bar.update(self._task, advance=rows, words=self.words())
        if not self.console.is_terminal and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            self.console.print(self.words(), markup=False, highlight=False)

    def words(self) -> str:
        """Such as "4,096 of 9,000 rows, about 12 s left"."""
        made = sum(self.made.values())
        return f"{made:,} of {self.total:,} rows, about {self.seconds_left():.0f} s left"

    def seconds_left(self) -> float:
        """A kind of which nothing is made yet is taken to be as fast as the other."""
        made = max(1, sum(self.made.values()))
        average = sum(self.busy.values()) / made
        pace = {kind: self.busy[kind] / self.made[kind] if self.made[kind] else average for kind in self.left}
        return sum(self.left[kind] * pace[kind] for kind in self.left) / self.jobs
