"""`python -m benchmarks frozen`: a recipe with a frozen tower, run once for all runs and run at every step.

The same short suite twice, one run after the other, each in a data folder of its own: with the tower's outputs kept,
and without. What is kept equals what the tower computes to 1e-5 (tests say so); training amplifies such differences, so
a few answers may change. Promised: scores within a thousandth, far less than seeds differ by. Told: after how many such
runs the pass has paid, in FLOPs and seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.cases import load_card
from benchmarks.records.read import load_records
from benchmarks.speed.lines import Comparison, Line
from benchmarks.speed.options import FrozenOptions
from benchmarks.suite.machine import ROOT, usable_cores
from mt2st.errors import Mt2stError

LARGEST_DIFFERENCE = 1e-3
WAYS = {"kept": "float32", "every step": "off"}


def measure(options: FrozenOptions) -> int:
    """Run both suites, print the table and write the record; returns 0 if the scores are the same, else 1."""
    console = Console()
    title = f"{options.case}, {options.recipe}: a frozen tower, kept and run at every step"
    comparison = Comparison("frozen", title, options, options.results)
    metric = load_card(options.case).spec.primary.id
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mt2st") as place:
        for way, kept in WAYS.items():
            console.print(f"measuring: {way}", highlight=False)
            found[way] = _suite(options, kept, Path(place, kept), metric)
            comparison.keep(way, found[way], [])
    comparison.keep("compared", {}, lines(found))
    return comparison.show(console)


def _suite(options: FrozenOptions, kept: str, place: Path, metric: str) -> dict[str, Any]:
    """One suite, whose records are in `place`: of each run FLOPs, seconds by phase and score; of each pass its cost."""
    threads = options.threads or usable_cores()
    command = [sys.executable, "-m", "benchmarks", options.case, "--recipe", options.recipe]
    command += ["--strategies", *options.strategies, "--views", "equal-steps", "--seeds", str(options.seeds)]
    command += ["--steps", str(options.steps), "--jobs", "1", "--threads", str(threads)]
    command += ["--encoder.cache-frozen", kept, "--results", str(place), "--data-folder", str(place / "data")]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Mt2stError(f"the suite with --encoder.cache-frozen {kept} failed: {' '.join(told)}")
    runs = load_records(place, options.case, options.recipe).finished
    return {
        "suite_seconds": time.perf_counter() - started,
        "runs": [
            {
                "strategy": run.strategy,
                "seed": run.seed,
                "steps": run.steps,
                "training_flops": run.training_flops,
                "validation_flops": run.values["flops"]["validation"],
                "seconds": run.values["phases_seconds"],
                "score": run.metric(metric),
            }
            for run in runs
        ],
        "passes": runs[0].values.get("frozen_towers") or [],
    }


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """The table's lines; `found` has the suites of both `WAYS`."""
    kept, every = found["kept"], found["every step"]
    flops_of_pass = sum(each["flops"] for each in kept["passes"])
    seconds_of_pass = sum(each["seconds"] for each in kept["passes"])
    items = sum(each["items"] for each in kept["passes"])
    pairs = list(zip(kept["runs"], every["runs"], strict=True))
    apart = max(abs(ours["score"] - theirs["score"]) for ours, theirs in pairs)
    saved_flops = (_total(every["runs"], _flops) - _total(kept["runs"], _flops)) / len(pairs)
    saved_seconds = (_total(every["runs"], _seconds) - _total(kept["runs"], _seconds)) / len(pairs)
    found_lines = [Line("the pass", f"{items:,} inputs, {flops_of_pass / 1e12:.2f} TFLOPs, {seconds_of_pass:.0f} s")]
    for ours, theirs in pairs:
        what = f"{ours['strategy']}, {ours['steps']} steps"
        found_lines += [
            Line(f"{what}: TFLOPs, kept / every step", f"{_flops(ours) / 1e12:.3f} / {_flops(theirs) / 1e12:.3f}"),
            Line(f"{what}: training seconds, kept / every step", f"{_seconds(ours):.1f} / {_seconds(theirs):.1f}"),
        ]
    return [
        *found_lines,
        Line("largest difference of a score", f"{apart:.1e}", f"≤ {LARGEST_DIFFERENCE:g}", apart <= LARGEST_DIFFERENCE),
        Line("runs like these after which the pass has paid, FLOPs", _runs(flops_of_pass, saved_flops)),
        Line("runs like these after which the pass has paid, seconds", _runs(seconds_of_pass, saved_seconds)),
    ]


def _runs(cost: float, saved: float) -> str:
    return f"{cost / saved:.1f}" if saved > 0 else "never"


def _total(runs: Sequence[Mapping[str, Any]], what: Any) -> float:
    return float(sum(what(run) for run in runs))


def _flops(run: Mapping[str, Any]) -> float:
    return float(run["training_flops"] + run["validation_flops"])


def _seconds(run: Mapping[str, Any]) -> float:
    """Of training and validation. The test of a suite's first run also computes the floors."""
    return float(run["seconds"]["train"] + run["seconds"]["validate"])
