"""What a comparison leaves: raw measurements, lines of a table with their goals, one record, one table.

The record is written after every measurement, so an interrupted command has told what it found until then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.records.machine import describe, environment
from benchmarks.records.metrics_log import plain
from benchmarks.report.text_table import TextTable, print_tables, to_markdown
from mt2st.errors import Mt2stError
from mt2st.files import new_folder, write_sealed_json, write_text

_JUDGED = {True: "met", False: "MISSED", None: ""}


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, the goal, whether it was met (None: not judged)."""

    what: str
    value: str
    goal: str = ""
    met: bool | None = None


class Comparison:
    """One run of a comparison: its folder, its record so far, its lines.

    Args:
        benchmark: the command's name, such as "peers training"; its words are the folders under `results`.
        title: of the table.
        options: the command's dataclass; it goes into the record.
        results: folder for the record.
    """

    def __init__(self, benchmark: str, title: str, options: Any, results: Path) -> None:
        started = datetime.now(timezone.utc)
        self.title = title
        self.folder = new_folder(results.joinpath(*benchmark.split()), f"{started:%Y%m%dT%H%M%S}")
        self.lines: list[Line] = []
        self.record: dict[str, Any] = {
            **environment(),
            "schema_version": 1,
            "benchmark": benchmark,
            "started_utc": started.isoformat(timespec="seconds"),
            "config": plain(asdict(options), "options"),
            "load_average_before": list(os.getloadavg()),
            "measurements": {},
        }

    def keep(self, part: str, raw: Any, lines: Sequence[Line]) -> None:
        """Add what a part measured, and write record and table as they are now."""
        self.record["measurements"][part] = raw
        self.lines += lines
        self.record["lines"] = [asdict(line) for line in self.lines]
        self.record["load_average_after"] = list(os.getloadavg())
        write_sealed_json(self.folder / "run.json", self.record)
        write_text(self.folder / "TABLE.md", to_markdown(self.table()))

    def table(self) -> TextTable:
        """The lines as a table."""
        before, after = self.record["load_average_before"][0], self.record["load_average_after"][0]
        return TextTable(
            self.title,
            ("measured", "value", "goal", ""),
            tuple((line.what, line.value, line.goal, _JUDGED[line.met]) for line in self.lines),
            f"{describe(self.record['hardware'])}; load average {before:.1f} before, {after:.1f} after",
        )

    def show(self, console: Console) -> int:
        """Print the table and where the record is; 1 if a goal was missed, else 0."""
        print_tables([self.table()], console)
        console.print(f"records: {self.folder}", markup=False, highlight=False, soft_wrap=True)
        return 1 if any(line.met is False for line in self.lines) else 0


def quartiles(values: Sequence[float], digits: int = 2) -> str:
    """ "1.52 [1.48, 1.60]": the median, and the quartiles around it."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


class TooLongError(Mt2stError):
    """A measurement did not end in the time that it was given."""


def in_process(
    module: str,
    task: str,
    arguments: Mapping[str, Any],
    *,
    surroundings: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> Any:
    """Run `task` of a module of workers in a fresh process, and return its JSON.

    Args:
        module: run as `python -m MODULE TASK ARGUMENTS`; prints one JSON value as its last line.
        surroundings: further environment variables of the process.
        seconds: that it may take; None = as long as it likes.

    Raises:
        TooLongError: it took longer, and was ended.
        Mt2stError: the process failed; its last line of complaint is in the message.
    """
    command = [sys.executable, "-m", module, task, json.dumps(dict(arguments))]
    repository = Path(__file__).resolve().parents[2]
    own = {**os.environ, **(surroundings or {})}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=repository, env=own, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise TooLongError(f"{task} took longer than {seconds:.0f} s and was ended") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Mt2stError(f"measuring {task} with {dict(arguments)} failed with exit code {done.returncode}: {reason}")
    return json.loads(done.stdout.strip().splitlines()[-1])
