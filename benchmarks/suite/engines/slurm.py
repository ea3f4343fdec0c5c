"""The engine of SLURM: a job a run, submitted through submitit.

A job runs `python -m benchmarks work` for one run and ends. A job that is preempted or runs out of its time leaves a
checkpoint; the driver submits the run again, since SLURM requeues no plain command (submitit#1732). The driver itself
keeps only so many jobs in the queue: submitit's local executor, with which this is tested, has no limit (#1718).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.suite.engines import Check, Ended, Needs, Order, missing_package
from benchmarks.suite.machine import ROOT
from mt2st.errors import Mt2stError

_QUEUED = 64  # jobs at a time where --jobs says nothing
_MEGABYTE = 1 << 20
_SPARE = 1.5  # of the memory that the driver takes itself


class Engine:
    """Jobs of a SLURM cluster; `--slurm cluster=local` runs them as processes of this machine.

    Raises:
        Mt2stError: submitit is not installed, there is no SLURM, or it does not know a setting.
    """

    def __init__(self, knobs: JobKnobs, needs: Needs, check: Check, most: int) -> None:
        try:
            import submitit
        except ImportError:
            raise missing_package("slurm", "submitit", "slurm") from None
        settings: dict[str, Any] = dict(setting.split("=", 1) for setting in knobs.slurm)
        cluster = settings.pop("cluster", "slurm")
        folder = Path(check.beacon).parent / "slurm"
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            asked = _asked(needs) | {name: int(text) if text.isdigit() else text for name, text in settings.items()}
            self._executor.update_parameters(name="mt2st", **asked)
        except (RuntimeError, ValueError, TypeError, KeyError, NameError) as error:
            raise Mt2stError(
                f"SLURM cannot be used ({' '.join(str(error).split()):.300}); check --slurm, or take another --engine"
            ) from None
        self._command_function: Any = submitit.helpers.CommandFunction
        self._needs, self._check = needs, check
        self.slots = knobs.jobs or min(most, _QUEUED)
        self._jobs: dict[str, Any] = {}

    def start(self, order: Order) -> None:
        command = [sys.executable, "-m", "benchmarks", "work", "--threads", str(self._needs.threads)]
        command += ["--check", json.dumps(asdict(self._check)), "--order", json.dumps(asdict(order))]
        function = self._command_function(command, verbose=False, cwd=ROOT)
        self._jobs[order.run_dir] = self._executor.submit(function)

    def ended(self) -> list[Ended]:
        found = []
        for run_dir, job in list(self._jobs.items()):
            if not job.done():
                continue
            del self._jobs[run_dir]
            told = _answer(job)
            if told["kind"] == "refused":
                raise Mt2stError(told["text"])
            found.append(Ended(run_dir, **told))
        return found

    def place(self, run_dir: str) -> str:
        job = self._jobs.get(run_dir)
        return f"job {job.job_id}" if job is not None else ""

    def stop(self) -> None:
        for job in self._jobs.values():
            job.cancel(check=False)


def _asked(needs: Needs) -> dict[str, Any]:
    """What a job asks of SLURM, in submitit's words."""
    asked: dict[str, Any] = {"cpus_per_task": needs.threads, "tasks_per_node": 1, "nodes": 1}
    if needs.gpus:
        asked["gpus_per_node"] = 1
    if needs.memory_bytes:
        asked["mem_gb"] = max(1, round(_SPARE * needs.memory_bytes / _MEGABYTE / 1024))
    return asked


def _answer(job: Any) -> dict[str, Any]:
    """What the job's command said last, or how the job ended."""
    try:
        said = str(job.result())
    except Exception as error:  # noqa: BLE001 - submitit raises what the job raised, of any kind
        said = str(error)
    for line in reversed(said.splitlines()):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and {"kind", "text"} <= set(told):
            return told
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    return {"kind": "died", "text": f"its job {job.job_id} ended as {job.state} ({last:.200}); log: {job.paths.stderr}"}
