"""Engines: what starts the runs of a suite. One file each, found by its name; each has a class `Engine`.

An engine starts `python -m benchmarks work` for one run and says when it ended. It knows nothing of training: the run's
folder, on a path that all machines see, is the truth, and one driver gives the runs out (`benchmarks.suite.drive`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.records.machine import resident_bytes
from benchmarks.suite.machine import gpu_count, usable_cores
from mt2st.errors import Mt2stError, unknown_name

_FOLDER = Path(__file__).parent
_KEPT_FREE = 0.2  # share of the free memory that no run is given


@dataclass(frozen=True)
class Order:
    """A run to be made.

    Attributes:
        run_dir: its folder, with config.json.
        wait_seconds: how long to wait if another process holds it.
        shared: another process was at it before.
    """

    run_dir: str
    wait_seconds: float = 0.0
    shared: bool = False


@dataclass(frozen=True)
class Ended:
    """How an order ended.

    Attributes:
        run_dir: the run's folder.
        kind: as of `Outcome`; "interrupted" = stopped from outside, "died" = its process ended without a word.
        text: a line for people.
        seconds: that it took.
    """

    run_dir: str
    kind: Literal["finished", "skipped", "failed", "held", "interrupted", "died"]
    text: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Needs:
    """What one run takes. Attributes: threads; gpus, 0 or a share of one; memory_bytes, 0 = unknown."""

    threads: int = 1
    gpus: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Check:
    """What a worker must have in common with the driver, or it refuses to train.

    Attributes:
        code: `code_version()` of the driver.
        beacon: a file in the results folder.
        word: what the file says.
    """

    code: str
    beacon: str
    word: str


def needs_of(threads: int, jobs_per_device: int) -> Needs:
    """What a run takes, judged by this process, which has the data open and has made a step."""
    return Needs(threads, 1 / jobs_per_device if gpu_count() else 0.0, resident_bytes())


def slots_here(needs: Needs, jobs_per_device: int, most: int) -> int:
    """Runs that this machine carries side by side, at least 1 and at most `most`: by GPUs, or by cores, and memory."""
    import psutil

    by_cores = gpu_count() * jobs_per_device or usable_cores() // needs.threads
    free = psutil.virtual_memory().available * (1 - _KEPT_FREE)
    by_memory = int(free // needs.memory_bytes) if needs.memory_bytes else by_cores
    return max(1, min(by_cores, by_memory, most))


class Engine(Protocol):
    """Starts runs somewhere."""

    slots: int  # runs at a time

    def start(self, order: Order) -> None:
        """Begin a run; called when fewer than `slots` are in work."""

    def ended(self) -> list[Ended]:
        """The runs that ended since the last call; returns at once.

        Raises:
            Mt2stError: a worker refused to work (another version, a folder it cannot see).
        """

    def place(self, run_dir: str) -> str:
        """Where a run in work is made, in a few words."""

    def stop(self) -> None:
        """Let every run save a checkpoint and end; returns when all have ended."""


def engine_names() -> list[str]:
    """Names of all engines, sorted, from the files alone."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_"))


def open_engine(knobs: JobKnobs, needs: Needs, check: Check, most: int) -> Engine:
    """Start the engine that `knobs` name.

    Args:
        most: runs that there are to make.

    Raises:
        Mt2stError: unknown engine (with the nearest names), a package is missing, or what it needs does not answer.
    """
    if knobs.engine not in engine_names():
        raise unknown_name("engine", knobs.engine, engine_names())
    module: Any = import_module(f"benchmarks.suite.engines.{knobs.engine}")
    engine: Engine = module.Engine(knobs, needs, check, most)
    return engine


def missing_package(engine: str, package: str, extra: str) -> Mt2stError:
    """The error for an engine whose package is not installed."""
    return Mt2stError(f"--engine {engine} needs the package {package}; install it with pip install 'mt2st[{extra}]'")
