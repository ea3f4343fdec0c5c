"""A worker: makes the runs that an engine orders, one after the other, each from its folder alone.

The data of a case are opened once for all of its runs. What a run prints, warnings and tracebacks, goes into its
`log.txt`. When the orders end, the run in work is checkpointed and ends as interrupted.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from benchmarks.cases import Case, CaseCard
from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from benchmarks.records.machine import environment
from benchmarks.suite.engines import Check, Order
from benchmarks.suite.machine import code_version
from benchmarks.suite.runs import begun_folder, begun_run
from benchmarks.suite.train import Outcome, reason, run_one
from mt2st.errors import Mt2stError
from mt2st.files import content_hash
from mt2st.threads import computing_threads


class Worker:
    """Makes runs; keeps the case that it opened last."""

    def __init__(self) -> None:
        self._open: tuple[str, Case] | None = None
        self._surroundings: Mapping[str, Any] = {}

    def make(self, order: Order) -> Outcome:
        """Make one run from its folder.

        Raises:
            Mt2stError: the folder is no run that this code makes on these data.
            KeyboardInterrupt: as `run_one`.
        """
        run_dir = Path(order.run_dir)
        card, knobs, run = begun_run(run_dir)
        with computing_threads(knobs.threads), _errors_into(run_dir / "log.txt"):
            case = self._case(card, knobs)
            self._surroundings = self._surroundings or environment()
            planned = begun_folder(case, knobs, run, run_dir)
            return run_one(case, planned, self._surroundings, wait_seconds=order.wait_seconds, shared=order.shared)

    def _case(self, card: CaseCard, knobs: SuiteKnobs) -> Case:
        """The case with its data; the same for all strategies and seeds."""
        blank: dict[str, Any] = {"strategies": ("STL",), "settings": (), "seeds": 1}
        knobs = replace(knobs, **blank)
        key = content_hash([card.name, knobs.shared(), knobs.conditions()])
        if self._open is None or self._open[0] != key:
            self._open = None  # not two of them at a time
            self._open = key, card.open(knobs, Console(stderr=True))
        return self._open[1]


def refusal(check: Check) -> str:
    """Why a worker with this `check` must not train; "" when it may."""
    here = code_version()
    if here != check.code:
        return (
            f"the worker in {Path.cwd()} runs mt2st {here}, the driver {check.code}; bring both to one version of the "
            "repository"
        )
    try:
        word = Path(check.beacon).read_text(encoding="utf-8")
    except OSError as error:
        word = str(error.strerror)
    if word != check.word:
        return (
            f"the worker cannot see the driver's results folder {Path(check.beacon).parent} ({word:.80}); give a "
            "folder on a path that all machines share (--results)"
        )
    return ""


def serve(orders: Iterable[bytes], answers: TextIO, check: Check) -> int:
    """Make what is ordered, one JSON object a line, and answer each with one; returns the exit code."""

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    if why := refusal(check):
        answer(kind="refused", text=why)
        return 2
    inbox = _Inbox(orders)
    worker = Worker()
    while (line := inbox.next()) is not None:
        try:
            answer(**vars(answered(worker, Order(**json.loads(line)))))
        except KeyboardInterrupt:
            answer(kind="interrupted", text="interrupted; saved")
            return 130
        except Exception:
            if not inbox.closed:
                raise
            return 130  # an interrupt in the midst of an import comes out as some other error
    return 0


def answered(worker: Worker, order: Order) -> Outcome:
    """The outcome of an order. What is wrong with the run's folder or its data is a failed run."""
    try:
        return worker.make(order)
    except (Mt2stError, OSError) as error:
        return Outcome("failed", f"failed: {reason(error)}")


class _Inbox:
    """Orders from a stream. Its end while a run is in work interrupts that run as SIGTERM would.

    Attributes:
        closed: the stream has ended.
    """

    def __init__(self, orders: Iterable[bytes]) -> None:
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._busy = self.closed = False
        threading.Thread(target=self._read, args=(orders,), daemon=True).start()

    def _read(self, orders: Iterable[bytes]) -> None:
        for line in orders:
            self._lines.put(line)
        with self._lock:
            self.closed = True
            if self._busy:
                os.kill(os.getpid(), signal.SIGTERM)
        self._lines.put(None)

    def next(self) -> bytes | None:
        """The next order; None when there are no more."""
        with self._lock:
            self._busy = False
        line = self._lines.get()
        with self._lock:
            if self.closed:
                return None
            self._busy = line is not None
        return line


@contextmanager
def _errors_into(path: Path) -> Iterator[None]:
    """Standard error of this process, also of its libraries, goes to the end of a file."""
    sys.stderr.flush()
    kept = os.dup(2)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.dup2(target, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(target)
