"""A worker as a process of this machine: `python -m benchmarks work`, orders in, answers out, one JSON object a line.

Standard library alone, because an actor of Ray carries this file to other machines as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

STOP_SECONDS = 60.0  # for a worker to finish its step and save


class WorkerProcess:
    """A worker that takes one order after the other.

    It ends in an orderly way, with a checkpoint, when its standard input ends: so it outlives neither its driver nor
    its actor.

    Args:
        root: the folder from which `python -m benchmarks` runs.
        check: code, beacon and word, which the worker compares before it trains.
        threads: CPU threads that its libraries start with.
        device: number of the GPU that it sees; None = as the process that starts it.
    """

    def __init__(self, root: str, check: dict[str, str], threads: int, device: str | None = None) -> None:
        environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        command = [sys.executable, "-m", "benchmarks", "work", "--check", json.dumps(check)]
        self._process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C reaches the driver alone, which then stops its workers
        )
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _listen(self) -> None:
        if self._process.stdout is None:
            return
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # a line that a kill tore; the end of the stream follows
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def give(self, order: dict[str, Any]) -> None:
        """Send an order. A worker that is dead says so by its next answer."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(order) + "\n")
                self._process.stdin.flush()
        except OSError:
            self._answers.put(None)

    def answer(self, wait_seconds: float | None = 0.0) -> dict[str, Any] | None:
        """The answer to the order, or {"kind": "died", …}; None while there is none. `wait_seconds` None = for ever."""
        try:
            found = self._answers.get(timeout=wait_seconds) if wait_seconds != 0 else self._answers.get_nowait()
        except queue.Empty:
            return None
        return {"kind": "died", "text": self._death()} if found is None else found

    def _death(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"its process {self.pid} ended with exit code {code}"
        name = signal.Signals(-code).name
        cause = ", perhaps for want of memory" if name == "SIGKILL" else ""
        return f"its process {self.pid} was ended by {name}{cause}"

    def end(self) -> None:
        """Ask for an orderly end; does not wait."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
        except OSError:  # what was not sent to a dead worker
            return

    def wait(self, seconds: float = STOP_SECONDS) -> None:
        """Wait for the end, and kill what has not ended by then."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Host:
    """An actor that keeps a worker process on its node."""

    def __init__(self, root: str, check: dict[str, str], threads: int) -> None:
        self._arguments = (root, check, threads)
        self._worker: WorkerProcess | None = None

    def node(self) -> str:
        """Its machine's name, and its own process."""
        return f"{socket.gethostname()}, actor {os.getpid()}"

    def make(self, order: dict[str, Any]) -> dict[str, Any]:
        """Have a run made; the worker's answer."""
        root, check, threads = self._arguments
        if not Path(root).is_dir():
            here = socket.gethostname()
            return {"kind": "refused", "text": f"{here} has no folder {root}; clone the repository there as here"}
        if self._worker is None:
            self._worker = WorkerProcess(root, check, threads)
        self._worker.give(order)
        answer = self._worker.answer(None) or {}
        if answer["kind"] in ("died", "interrupted"):
            self._worker = None
        return answer

    def stop(self) -> None:
        """Let the worker save and end."""
        if self._worker is not None:
            self._worker.end()
            self._worker.wait()
