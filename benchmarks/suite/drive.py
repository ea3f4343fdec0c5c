"""The driver: gives the runs of a plan to an engine, watches them end, and gives out again what died.

Which engine, how many at a time and in which order runs end changes none of their bits: each run is made from its own
folder, with its own seed, by one process with a fixed number of threads.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.cases import Case
from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.records.lock import LockedError
from benchmarks.records.machine import environment
from benchmarks.suite import ranks
from benchmarks.suite.engines import Check, Ended, Engine, Order, needs_of, open_engine, slots_here
from benchmarks.suite.machine import code_version
from benchmarks.suite.progress import Board
from benchmarks.suite.runs import Planned
from benchmarks.suite.train import reason, run_one
from mt2st.errors import Mt2stError
from mt2st.training.checkpoint import newest_checkpoint

_HELD_WAIT_SECONDS = 2.0  # on one run in other hands, before the next is looked at
_LOOK_SECONDS = 0.2  # between looks at the engine
_WORTH_A_WORKER_FLOPS = 3e11  # below that much work a worker takes longer to start than it saves
_RETRIES = 1  # of a run whose process died, without a newer checkpoint in between


def drive(case: Case, plan: Sequence[Planned], console: Console) -> int:
    """Make what is not finished; returns how many runs failed.

    Raises:
        Mt2stError: the engine cannot work; nothing was trained then.
        KeyboardInterrupt: all runs in work were checkpointed and recorded as interrupted.
    """
    where = plan[0].knobs.where
    todo = [planned for planned in plan if planned.folder.state() != "finished"]
    if ranks.world() > 1:
        _check_alone(where)
    with _beacon(plan[0].folder.path.parent) as (path, word):
        engine = _engine(case, plan, todo, Check(code_version(), str(path), word))
        board = Board(plan, engine.place, console)
        try:
            with board.shown():
                return _Driver(plan, engine, board).run()
        finally:
            engine.stop()


def _check_alone(where: JobKnobs) -> None:
    if where.engine != "local" or where.jobs > 1:
        raise Mt2stError(
            f"{ranks.world()} processes train one run at a time; leave out --jobs and --engine, or the launcher"
        )


def _engine(case: Case, plan: Sequence[Planned], todo: Sequence[Planned], check: Check) -> Engine:
    """Workers, or this process itself where one run is made at a time."""
    where, threads = plan[0].knobs.where, plan[0].knobs.threads
    if where.engine == "local":
        needs = needs_of(threads, where.jobs_per_device)
        slots = where.jobs or slots_here(needs, where.jobs_per_device, len(todo))
        little = not where.jobs and sum(planned.run.flops for planned in todo) < _WORTH_A_WORKER_FLOPS
        if slots == 1 or little or ranks.world() > 1:
            return InThisProcess(case, plan)
    return open_engine(where, needs_of(threads, where.jobs_per_device), check, max(1, len(todo)))


class InThisProcess:
    """An engine that makes each run as it is ordered, in this process."""

    slots = 1

    def __init__(self, case: Case, plan: Sequence[Planned]) -> None:
        self._case = case
        self._plan = {str(planned.folder.path): planned for planned in plan}
        self._surroundings: Mapping[str, Any] = {}
        self._ended: list[Ended] = []

    def start(self, order: Order) -> None:
        self._surroundings = self._surroundings or environment()
        outcome = run_one(
            self._case,
            self._plan[order.run_dir],
            self._surroundings,
            wait_seconds=order.wait_seconds,
            shared=order.shared,
        )
        self._ended.append(Ended(order.run_dir, outcome.kind, outcome.text, outcome.seconds))

    def ended(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def place(self, run_dir: str) -> str:
        return "this process"

    def stop(self) -> None:
        """Nothing is in work between two orders."""


@contextmanager
def _beacon(folder: Path) -> Iterator[tuple[Path, str]]:
    """A file by which workers see that they look at the driver's results folder; gone afterwards."""
    word = secrets.token_hex(16)
    path = folder / f".driver-{socket.gethostname()}-{os.getpid()}"
    if not ranks.is_first():
        yield path, word
        return
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".driver-{socket.gethostname()}-*"):  # by drivers that were killed
        if not psutil.pid_exists(int(left.name.rpartition("-")[2])):
            left.unlink(missing_ok=True)
    path.write_text(word, encoding="utf-8")
    try:
        yield path, word
    finally:
        path.unlink(missing_ok=True)


class _Driver:
    """The state of a suite that is being made."""

    def __init__(self, plan: Sequence[Planned], engine: Engine, board: Board) -> None:
        self._engine, self._board = engine, board
        self._by_path = {str(planned.folder.path): planned for planned in plan}
        self._todo = deque(plan)
        self._held: set[str] = set()  # runs that were once in another process's hands
        self._in_vain = 0  # looks in a row that found a run in other hands
        self._deaths: Counter[str] = Counter()
        self._seen_step: dict[str, int] = {}
        self._failed = 0

    def run(self) -> int:
        """Until all have ended; returns how many failed."""
        while self._todo or self._board.in_work:
            while self._todo and len(self._board.in_work) < self._engine.slots:
                self._give(self._todo.popleft())
            ended = self._engine.ended()
            for end in ended:
                self._take(end)
            self._board.tick()
            if not ended and self._board.in_work:
                time.sleep(_LOOK_SECONDS)
        return self._failed

    def _give(self, planned: Planned) -> None:
        """Order a run; what is finished is only counted."""
        path = str(planned.folder.path)
        try:
            if ranks.world() == 1 and self._finished(planned):  # several processes look together; see `run_one`
                text = "finished by another process meanwhile" if path in self._held else "finished before"
                self._board.end(planned, f"{text}, skipped", trained=False)
                return
        except (Mt2stError, OSError) as error:  # this folder cannot be used; the other runs can
            self._failed += 1
            self._board.end(planned, f"failed: {reason(error)}", trained=False)
            return
        # Processes that share a suite share its runs: one waits only when all that is left is in other hands.
        wait_seconds = _HELD_WAIT_SECONDS if self._in_vain > len(self._todo) else 0.0
        self._board.start(planned)
        self._engine.start(Order(path, wait_seconds, shared=path in self._held))

    @staticmethod
    def _finished(planned: Planned) -> bool:
        """Whether a run is finished; if not, its folder is made ready for a worker."""
        folder = planned.folder
        if folder.state() == "finished":
            with contextlib.suppress(LockedError):
                folder.serve(planned.run.views, planned.run.looks)
            return True
        with contextlib.suppress(LockedError), folder.lock():  # one in other hands comes back as held
            for damage in folder.repair():
                folder.write_log(f"repaired: {damage}\n")
            folder.announce()
        return False

    def _take(self, end: Ended) -> None:
        planned = self._by_path[end.run_dir]
        if end.kind == "held":
            self._board.put_back(planned)
            if end.run_dir not in self._held:
                self._board.say(f"{planned.run.label}: put off, {end.text}")
            self._held.add(end.run_dir)
            self._in_vain += 1
            self._todo.append(planned)
            return
        self._in_vain = 0
        if end.kind in ("died", "interrupted"):
            self._again_or_failed(planned, end)
            return
        self._failed += end.kind == "failed"
        self._board.end(planned, end.text, trained=end.kind != "skipped")

    def _again_or_failed(self, planned: Planned, end: Ended) -> None:
        """A run without its process: once more from its checkpoint, or failed."""
        path, folder = end.run_dir, planned.folder
        found = newest_checkpoint(folder.checkpoints)
        step = int(found[1]["step"]) if found else 0
        if step > self._seen_step.get(path, 0):
            self._deaths[path] = 0
        self._seen_step[path] = step
        self._deaths[path] += 1
        story = f"{end.text}; log: {folder.log}"
        folder.write_log(f"{end.kind}: {end.text}\n")
        if self._deaths[path] <= _RETRIES:
            self._board.put_back(planned)
            self._board.say(f"{planned.run.label}: {story}; tried again from step {step}")
            self._todo.appendleft(planned)
            return
        self._failed += 1
        try:
            with folder.lock():
                if folder.status() is None:
                    folder.fail({"views": list(planned.run.views)}, f"twice without a newer checkpoint: {end.text}")
        except (LockedError, Mt2stError, OSError) as error:
            story += f"; nor could that be recorded: {reason(error)}"
        self._board.end(planned, f"failed twice without a newer checkpoint: {story}", trained=True)
