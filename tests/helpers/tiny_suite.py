"""Suites that train within seconds, started by their command line, and what of them may not differ by a bit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.records.folder import RunFolder
from benchmarks.records.read import load_records

ROOT = Path(__file__).parents[2]
DRAWN = Path(__file__).with_name("drawn_dataset.py")
_PROGRAM = (sys.executable, "-m", "benchmarks")
_MARK = "MT2ST_TEST_COMMAND"  # in the environment of a command and of all that it starts
_SHARED = f"""
    --data {DRAWN} --image-size 16 --seeds 1 --views equal-steps --validations 2 --caption-images-per-batch 8
    --encoder.width 16 --encoder.embedding-width 16 --encoder.fusion-width 16 --encoder.stem-width 4
    --encoder.vocabulary-size 300 --keep checkpoints
"""
_OWN = {
    "vqa": "--label-fraction 0.5 --images-per-batch 4 --questions-per-image 2 --auxiliaries contrastive masked_lm",
    "retrieval": "--second-test-split= --images-per-batch 8 --auxiliaries captions masked_lm",
}


def arguments(case: str, results: Path, data_folder: Path, *more: object) -> list[str]:
    """What stands behind `python -m benchmarks`."""
    places = ["--results", str(results), "--data-folder", str(data_folder)]
    return [case, *_SHARED.split(), *_OWN[case].split(), *places, *map(str, more)]


class Command:
    """`python -m benchmarks …` in a process of its own, whose whole offspring can be found again, orphans too.

    Args:
        argv: what stands behind `python -m benchmarks`.
        log: file for all that is printed.
        program: what takes the place of `python -m benchmarks`.
        environment: further variables.
    """

    def __init__(self, argv: list[str], log: Path, program: Sequence[str] = _PROGRAM, **environment: str) -> None:
        self.log, self._mark = log, uuid.uuid4().hex
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), _MARK: self._mark, **environment}
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*program, *argv],
                env=variables,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def errors(self) -> list[str]:
        """The lines of error."""
        return [line for line in self.printed.splitlines() if line.startswith("error: ")]

    def wait(self, seconds: float = 600.0) -> int:
        """Exit code of the command."""
        return self.process.wait(timeout=seconds)

    def offspring(self) -> list[psutil.Process]:
        """What the command started and still runs, whoever its parent is now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found += [process] if process.environ().get(_MARK) == self._mark else []
            except psutil.Error:  # it ended meanwhile, or belongs to somebody else
                continue
        return found

    def rank(self, number: int) -> psutil.Process | None:
        """Process `number` of a run on several."""
        return next((each for each in self.offspring() if variable(each, "RANK") == str(number)), None)

    def workers(self) -> list[psutil.Process]:
        """The workers of a driver."""
        return [process for process in self.offspring() if "work" in command_line(process)]

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self.offspring():
            process.kill()
        self.process.kill()
        self.process.wait()


def variable(process: psutil.Process, name: str) -> str:
    """A variable of a process's environment; "" when it has ended."""
    try:
        return process.environ().get(name, "")
    except psutil.Error:
        return ""


def command_line(process: psutil.Process) -> list[str]:
    """The words of a process's command; none when it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Wait for `condition`; returns its value.

    Raises:
        TimeoutError: it did not come true.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {seconds} s: {condition}")
        time.sleep(0.01)
    return found


def run_folders(results: Path, case: str = "vqa") -> list[Path]:
    """Folders of runs, begun or not."""
    return sorted(path.parent for path in results.glob(f"{case}/default/*/config.json"))


def owner(run_dir: Path) -> int:
    """The process that makes a run now; 0 when none does."""
    try:
        return int(json.loads((run_dir / "lock.owner").read_text())["pid"])
    except (OSError, ValueError):
        return 0


def saved_step(run_dir: Path) -> int:
    """Step of the newest checkpoint; 0 without."""
    return max((int(path.name.removeprefix("step-")) for path in run_dir.glob("checkpoints/step-*")), default=0)


def outcome(results: Path, benchmark: str = "vqa", recipe: str = "default") -> dict[str, dict[str, Any]]:
    """Run id → everything that must be the same bits: weights, optimiser, ledger, curve, items, metrics, log.

    Not the seconds.

    Raises:
        AssertionError: there are holes.
    """
    records = load_records(results, benchmark, recipe)
    assert not records.holes, records.holes
    return {record.folder.name: _outcome_of(record) for record in records.finished}


def _outcome_of(record: Any) -> dict[str, Any]:
    newest = max((record.folder / "checkpoints").glob("step-*"))
    log = RunFolder.existing(record.folder).metrics()
    return {
        "weights": _digest((newest / "model.safetensors").read_bytes()),
        "optimizer": _digest((newest / "optimizer.safetensors").read_bytes()),
        "flops": record.values["flops"],
        "steps": record.steps,
        "curve": [_without_seconds(row) for row in record.curve],
        "metrics": record.values["metrics"],
        "items": {name: _digest(array.tobytes()) for name, array in record.items.items()},
        "log": [_without_seconds(row) for row in log if row["event"] != "resume"],
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _without_seconds(row: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


def differences(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> list[str]:
    """What differs, as "run: part"."""
    found = [f"{name}: only in one" for name in one.keys() ^ other.keys()]
    return found + [
        f"{name}: {part}"
        for name in one.keys() & other.keys()
        for part in one[name]
        if one[name][part] != other[name][part]
    ]
