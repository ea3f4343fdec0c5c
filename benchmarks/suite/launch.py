"""`--processes N`: starts this command N times on this machine, as torchrun would, and ends all when one ends badly."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from benchmarks.suite import ranks
from benchmarks.suite.machine import gpu_count
from mt2st.errors import Mt2stError

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 60.0  # for the processes to save after a stop
_AFTER_A_DEATH_SECONDS = 10.0  # for the others, which wait for the dead one, to end by themselves


def launch(processes: int, threads: int, argv: Sequence[str]) -> int:
    """Run `python -m benchmarks argv…` in `processes` processes; returns the first one's exit code.

    Raises:
        Mt2stError: there are fewer GPUs than processes, or one of them died; the others are ended then.
        KeyboardInterrupt: stopped from outside; all processes have saved.
    """
    if (gpus := gpu_count()) and processes > gpus:
        raise Mt2stError(
            f"--processes {processes} are more than {gpus} GPUs; start at most {gpus}, or hide the GPUs "
            "(CUDA_VISIBLE_DEVICES=)"
        )
    port = free_port()
    children: list[subprocess.Popen[bytes]] = []
    errors: list[IO[bytes]] = []
    kept = contextlib.ExitStack()
    try:
        for rank in range(processes):
            environment = {**surroundings(rank, processes, threads, port), ranks.LAUNCHED_BY_US: "1"}
            said = kept.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            errors.append(said)
            child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks", *argv],
                env=environment,
                stdin=subprocess.PIPE,  # its end tells them that this process is gone
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=None if rank == 0 else said,
                start_new_session=True,
            )
            children.append(child)
        return _watched(children, errors)
    except KeyboardInterrupt:
        _end(children, signal.SIGTERM, _GRACE_SECONDS)
        raise
    finally:
        _end(children, signal.SIGKILL, _GRACE_SECONDS)
        kept.close()


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def surroundings(rank: int, processes: int, threads: int, port: int) -> dict[str, str]:
    """The environment of process `rank` of `processes` on this machine, as torchrun would make it."""
    return {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }


def _watched(children: Sequence[subprocess.Popen[bytes]], errors: Sequence[IO[bytes]]) -> int:
    """Until all have ended; the first one's exit code."""
    while True:
        codes = [child.poll() for child in children]
        culprit = _culprit(codes)
        if culprit is not None:
            _wait(children, _AFTER_A_DEATH_SECONDS)
            if children[0].poll() == 2:
                return 2  # it has said why
            raise Mt2stError(
                f"process {culprit} of {len(children)} {_story(codes[culprit] or 0, errors[culprit])}; all were ended; "
                "the same command goes on from the last checkpoint"
            )
        if all(code in _ORDERLY for code in codes):
            return codes[0] or 0
        if any(code is not None for code in codes):
            _wait(children, _GRACE_SECONDS if 130 in codes else _AFTER_A_DEATH_SECONDS)
            codes = [child.poll() for child in children]
            if _culprit(codes) is None and not all(code in _ORDERLY for code in codes):
                first = next((rank for rank, code in enumerate(codes) if code in _ORDERLY), 0)
                raise Mt2stError(
                    f"process {first} of {len(children)} ended with exit code {codes[first]} without the others; all "
                    "were ended; the same command goes on from the last checkpoint"
                )
        time.sleep(_LOOK_SECONDS)


_ORDERLY = (0, 1, 130)  # as `EXIT_CODES` says


def _culprit(codes: Sequence[int | None]) -> int | None:
    """The process that ended badly by itself."""
    return next((rank for rank, code in enumerate(codes) if code not in (None, ranks.LOST, *_ORDERLY)), None)


def _story(code: int, errors: IO[bytes]) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "")
    return f"ended with exit code {code}" + (f" ({said.strip():.300})" if said else "")


def _wait(children: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(child.poll() is None for child in children):
        time.sleep(_LOOK_SECONDS)


def _end(children: Sequence[subprocess.Popen[bytes]], how: signal.Signals, seconds: float) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(how)
    _wait(children, seconds)
