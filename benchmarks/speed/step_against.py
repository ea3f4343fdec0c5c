"""This checkout's default step beside another checkout's: the same batches, each in a process of its own, in turn.

    git worktree add ../before COMMIT
    python -m benchmarks step --against ../before

So a change of the step is measured against what was there, on one machine and in one run. The other checkout needs
`step_worker` and `loop.py`: it is run with this environment's Python, and prepares its own data.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.records.machine import commit
from benchmarks.speed.lines import Line, quartiles
from benchmarks.speed.options import StepOptions
from benchmarks.speed.step_processes import blocks_in_turn
from benchmarks.suite.machine import ROOT
from mt2st.errors import Mt2stError

GOAL = 1.25
_SAME = 1e-4  # largest relative difference of losses that are those of the same training
_STEPS = 20  # whose losses are compared
_LOSSES = """
import json, sys
from io import StringIO
from rich.console import Console
import mt2st
from benchmarks.cases import load_card
from benchmarks.speed.loop import Loop
card = load_card(sys.argv[1])
loop = Loop(card.open(card.knobs("default"), Console(file=StringIO())), threads=int(sys.argv[2]))
print(json.dumps({"file": mt2st.__file__, "losses": loop.losses(int(sys.argv[3])), "flops": loop.trainer.ledger.total}))
"""


def against(case: str, threads: int, other: Path, options: StepOptions) -> dict[str, Any]:
    """Losses and FLOPs of the first steps of both checkouts, and blocks of both in turn.

    Raises:
        Mt2stError: `other` is no checkout of this repository, or its code does not run.
    """
    roots = {"ours": Path(ROOT), "theirs": other.resolve()}
    found: dict[str, Any] = {"commits": {name: commit(root) for name, root in roots.items()}}
    found["first_steps"] = {name: first_steps(case, threads, root) for name, root in roots.items()}
    found["turns"] = blocks_in_turn({name: (1, threads, root) for name, root in roots.items()}, case, options)
    return {**found, "steps": options.steps}


def first_steps(case: str, threads: int, root: Path) -> dict[str, Any]:
    """Losses of the first steps and their FLOPs, by the code of the checkout `root`.

    Raises:
        Mt2stError: there is no such code, or it does not run.
    """
    if not (root / "benchmarks" / "speed" / "loop.py").is_file():
        raise Mt2stError(f"--against {root} is no checkout with benchmarks/speed/loop.py; make one: git worktree add")
    command = [sys.executable, "-c", _LOSSES, case, str(threads), str(_STEPS)]
    # The folder it runs in comes first among those that Python imports from.
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = next((line for line in reversed(ended.stderr.splitlines()) if line.strip()), "nothing")
        raise Mt2stError(f"the code of {root} does not make a step of {case}: {said.strip():.300}")
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    if not Path(told.pop("file")).resolve().is_relative_to(root.resolve()):
        raise Mt2stError(f"in {root} another mt2st was imported; unset PYTHONSAFEPATH, which hides the folder")
    return told


def against_lines(what: str, found: Mapping[str, Any]) -> list[Line]:
    """The table's lines: the rate beside the other checkout's, and how far losses and FLOPs part."""
    ours, theirs = ([turn["seconds"] for turn in found["turns"][name]] for name in ("ours", "theirs"))
    ratios = [then / now for now, then in zip(ours, theirs, strict=True)]
    first = found["first_steps"]
    parted = max(
        abs(own - other) / abs(other)
        for own, other in zip(first["ours"]["losses"], first["theirs"]["losses"], strict=True)
    )
    commit_there = (found["commits"]["theirs"] or {}).get("hash", "no commit")[:7]
    return [
        Line(f"{what}: ms a step", quartiles([1000 * seconds / found["steps"] for seconds in ours], 1)),
        Line(f"{what}: rate / that of {commit_there}", quartiles(ratios), f"≥ {GOAL}", median(ratios) >= GOAL),
        Line(
            f"{what}: FLOPs a step / those of {commit_there}",
            f"{first['ours']['flops'] / first['theirs']['flops']:.4f}",
        ),
        Line(
            f"{what}: largest relative difference of the loss in {_STEPS} steps",
            f"{parted:.1e}",
            f"≤ {_SAME:.0e}",
            parted <= _SAME,
        ),
    ]
