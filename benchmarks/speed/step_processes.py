"""One run on all cores of a machine: as threads of one process, or as processes that share each batch.

Both train the same batches. The processes wait between their turns, and wait without computing.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed.lines import Line, quartiles
from benchmarks.speed.options import StepOptions
from benchmarks.suite.launch import free_port, surroundings
from benchmarks.suite.machine import ROOT
from mt2st.errors import Mt2stError

GOAL = 1.25
_MODULE = "benchmarks.speed.step_worker"
Turns = dict[str, list[dict[str, Any]]]  # way → what each block took


class Workers:
    """Processes of `step_worker` that train one run, each with so many threads; `root` = whose code they run."""

    def __init__(self, case: str, processes: int, threads: int, root: Path = Path(ROOT)) -> None:
        port = free_port()
        self._all = [
            subprocess.Popen(
                [sys.executable, "-m", _MODULE, case, str(threads)],
                cwd=root,
                # a single process needs nobody to meet
                env=surroundings(rank, processes, threads, port) if processes > 1 else dict(os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(processes)
        ]

    def block(self, steps: int) -> dict[str, Any]:
        """What a block of so many steps took: that of the slowest process.

        Raises:
            Mt2stError: a process has ended.
        """
        told = []
        try:
            for each in self._all:
                assert each.stdin is not None
                each.stdin.write(f"{steps}\n")
                each.stdin.flush()
            for each in self._all:
                assert each.stdout is not None
                told.append(json.loads(each.stdout.readline()))
        except (OSError, ValueError) as error:
            raise Mt2stError(f"a process of {len(self._all)} that train one run ended ({error})") from error
        return {
            "seconds": max(one["seconds"] for one in told),
            "images": told[0]["images"],
            "flops": sum(one["flops"] for one in told),
        }

    def close(self) -> None:
        """End them."""
        for each in self._all:
            assert each.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                each.stdin.close()
        for each in self._all:
            each.wait()


def blocks_in_turn(ways: Mapping[str, tuple[int, int, Path]], case: str, options: StepOptions) -> Turns:
    """Blocks of steps of several ways to train `case`, in turn; which of them comes first changes from pair to pair.

    Args:
        ways: name → processes, threads of each, and the checkout whose code they run.
    """
    with contextlib.ExitStack() as open_ones:
        workers = {}
        for name, (processes, threads, root) in ways.items():
            workers[name] = Workers(case, processes, threads, root)
            open_ones.callback(workers[name].close)
        found: Turns = {name: [] for name in ways}
        for pair in range(options.pairs + 1):
            for name in sorted(ways, reverse=bool(pair % 2)):
                told = workers[name].block(options.steps)
                if pair:  # the first one warms up
                    found[name].append(told)
        return found


def on_cores(case: str, cores: int, options: StepOptions) -> Turns:
    """Blocks of steps of both ways, in turn."""
    here = Path(ROOT)
    return blocks_in_turn({"threads": (1, cores, here), "processes": (cores, 1, here)}, case, options)


def cores_lines(case: str, cores: int, turns: Turns) -> list[Line]:
    """The table's lines: images/s of each way, and the ratio of neighbours in time."""
    rates = {name: _rates(told) for name, told in turns.items()}
    ratios = [ours / theirs for ours, theirs in zip(rates["processes"], rates["threads"], strict=True)]
    what = f"{case}, one run on {cores} cores"
    return [
        Line(f"{what}: images/s, {cores} threads", quartiles(rates["threads"], 0)),
        Line(f"{what}: images/s, {cores} processes", quartiles(rates["processes"], 0)),
        Line(f"{what}: processes / threads", quartiles(ratios), f"≥ {GOAL}", median(ratios) >= GOAL),
    ]


def _rates(turns: Sequence[dict[str, Any]]) -> list[float]:
    return [turn["images"] / turn["seconds"] for turn in turns]
