"""What a suite shows while it runs: a live table on a terminal, plain lines elsewhere.

The numbers come from the runs' folders, so they are the same whichever engine makes the runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from benchmarks.records.check import LOG_FILE
from benchmarks.suite.runs import Planned

PLAIN_SECONDS = 60.0  # between lines on what is in work, where there is no terminal
_TAIL_BYTES = 1 << 16


@dataclass
class InWork:
    """A run in work. Attributes: started, in seconds; first_step since; step, score seen last; found before."""

    planned: Planned
    started: float
    first_step: int | None = None
    step: int = 0
    found: int = 0
    score: str = ""
    size: int = field(default=-1, repr=False)

    def look(self) -> None:
        """Read the end of the run's metrics, if there is more than before."""
        path = self.planned.folder.path / LOG_FILE
        try:
            size = path.stat().st_size
            if size == self.size:
                return
            lines = _tail(path)
        except OSError:  # not there yet, or taken away by a resume
            return
        self.size = size
        for line in lines:
            self.step = int(line.get("step", self.step))
            if line.get("event") == "validation":
                found = [(key, value) for key, value in line.items() if key not in _NO_SCORES]
                self.score = f"{found[0][0]} {found[0][1]:.4f}" if found else ""
        if self.first_step is None and self.step:
            self.first_step, self.started = self.step, time.monotonic()

    @property
    def share(self) -> float:
        """Of the steps done."""
        return min(1.0, self.step / self.planned.run.steps)

    @property
    def found_share(self) -> float:
        """Of the steps that an earlier attempt had done."""
        return self.found / self.planned.run.steps

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        done = self.step - (self.first_step or 0)
        spent = time.monotonic() - self.started
        return spent / done * max(0, self.planned.run.steps - self.step) if done > 0 else None


_NO_SCORES = ("event", "step", "flops", "seconds")


def _tail(path: Path) -> list[dict[str, Any]]:
    """The whole lines within the last bytes of a metrics log; a torn one is passed over."""
    with path.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
        raw = stream.read().split(b"\n")
    found = []
    for line in raw[:-1]:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


class Board:
    """The runs in work, and how far the whole is.

    Args:
        plan: all runs.
        place: run folder → where it is made, in a few words.
    """

    def __init__(self, plan: Sequence[Planned], place: Callable[[str], str], console: Console) -> None:
        self.console, self._place = console, place
        self._total = sum(planned.run.flops for planned in plan)
        self._runs = len(plan)
        self._started = time.monotonic()
        self._told = self._started
        self._ended = 0
        self._done = self._found = 0.0  # FLOPs: of the runs that ended, and what of them was there before
        self.in_work: dict[str, InWork] = {}

    def start(self, planned: Planned) -> None:
        """A run begins."""
        run = InWork(planned, time.monotonic())
        run.look()
        run.found = run.step
        self.in_work[str(planned.folder.path)] = run

    def put_back(self, planned: Planned) -> None:
        """A run in work is not being made after all."""
        self.in_work.pop(str(planned.folder.path), None)

    def end(self, planned: Planned, text: str, *, trained: bool) -> None:
        """A run ended; says so in a line."""
        run = self.in_work.get(str(planned.folder.path))
        self.put_back(planned)
        self._ended += 1
        self._done += planned.run.flops
        self._found += planned.run.flops * ((run.found_share if run else 0.0) if trained else 1.0)
        views = ", ".join(planned.run.views)
        self.say(f"[{self._ended}/{self._runs}] {planned.run.label} ({views}): {text}; {self._left_text()}")

    def say(self, text: str) -> None:
        """A line above the table."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """For the whole, at the pace so far; None before there is one."""
        partial = self._partial()
        found = sum(run.planned.run.flops * run.found_share for run in list(self.in_work.values()))
        made = self._done - self._found + partial - found
        spent = time.monotonic() - self._started
        left = self._total - self._done - partial
        return spent / made * left if made > 0 else None if left else 0.0

    def _partial(self) -> float:
        """FLOPs done of the runs in work."""
        return sum(run.planned.run.flops * run.share for run in list(self.in_work.values()))

    def _left_text(self) -> str:
        left = self.seconds_left()
        return "time left not known yet" if left is None else f"about {minutes(left)} left"

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the table while the block runs, where there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._table, console=self.console, refresh_per_second=2, transient=True):
            yield

    def tick(self) -> None:
        """Called now and then: looks at the folders, and prints a line where there is no table."""
        for run in list(self.in_work.values()):
            run.look()
        if self.console.is_terminal or not self.in_work or time.monotonic() - self._told < PLAIN_SECONDS:
            return
        self._told = time.monotonic()
        runs = "; ".join(self._line_of(run) for run in self.in_work.values())
        self.say(f"in work: {runs}; {self._left_text()}")

    def _line_of(self, run: InWork) -> str:
        planned = run.planned.run
        return f"{planned.strategy} seed {planned.seed} step {run.step}/{planned.steps} {run.score}".strip()

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("run", "step", "last validation", "left", "where"):
            table.add_column(name, justify="right" if name in ("step", "left") else "left")
        for path, run in list(self.in_work.items()):
            run.look()
            left = run.seconds_left
            table.add_row(
                f"{run.planned.run.strategy} seed {run.planned.run.seed}",
                f"{run.step}/{run.planned.run.steps}",
                run.score,
                minutes(left) if left is not None else "…",
                self._place(path),
            )
        share = (self._done + self._partial()) / max(1, self._total)
        whole = Text(f"{self._ended} of {self._runs} runs, {share:.0%} of the FLOPs, {self._left_text()}")
        bottom = Table.grid(padding=(0, 1))
        bottom.add_row(ProgressBar(total=1.0, completed=share, width=30), whole)
        return Group(table, bottom)


def minutes(seconds: float) -> str:
    """ "45 s", or "3.2 min"."""
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
