"""Kill a suite again and again at random instants, and compare what it becomes with one that was never killed.

    python tests/integration/chaos/kills.py --case vqa --kills 60 --seed 0

Prints one JSON object: kills by phase and by signal, rounds, differing runs. Exit code 1 if a run was lost or a bit
differed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chaos_suites import CASES, PHASES, PhaseWatch, Suite, as_json, fork, wait

from benchmarks.records.read import load_records
from tests.helpers.tiny_suite import differences

# How often a phase is aimed at, and at most which of its entries since the attempt began.
_AIMS = {
    "start": (1, 1), "train": (4, 12), "switch": (3, 2), "validate": (3, 3), "checkpoint": (5, 6), "test": (2, 2),
    "record": (2, 2), "report": (1, 1),
}  # fmt: skip
_SIGNALS = (signal.SIGKILL,) * 8 + (signal.SIGTERM, signal.SIGINT)
_LONGEST_DELAY_SECONDS = 0.03
_KILLS_A_ROUND = 8


def campaign(name: str, kills: int, seed: int, folder: Path, **changes: Any) -> dict[str, Any]:
    """Rounds of: a fresh results folder, up to 8 attempts that are killed, one that is let through, comparison."""
    chance = random.Random(f"{name}:{seed}")
    suite = Suite(name, folder / "data", **changes)
    suite.case.build(0)
    whole = folder / "whole"
    if code := wait(fork(lambda: suite.run(whole), folder / "whole.log")):
        raise AssertionError(f"the uninterrupted suite ended with {code}:\n{(folder / 'whole.log').read_text()}")
    expected = suite.outcome(whole)
    phases: Counter[str] = Counter()
    signals: Counter[str] = Counter()
    different: list[str] = []
    rounds = attempts = 0
    while sum(phases.values()) < kills:
        results = folder / f"round-{rounds}"
        rounds += 1
        for number in range(_KILLS_A_ROUND + 1):
            attempts += 1
            through = number == _KILLS_A_ROUND or sum(phases.values()) == kills
            code, phase = _attempt(suite, results, folder / "attempts.log", None if through else chance)
            if code == 0:
                break
            if through or code not in (-signal.SIGKILL, -signal.SIGTERM, 130):
                different.append(f"round {rounds}: exit code {code}, not 0: {_last_line(folder / 'attempts.log')}")
                break
            phases[phase] += 1
            signals["SIGKILL" if code == -signal.SIGKILL else "SIGTERM or SIGINT"] += 1
            _readable(suite, results)
        if code == 0:
            different += [f"round {rounds}: {text}" for text in differences(expected, suite.outcome(results))]
            different += [f"round {rounds}: {path} is left over" for path in results.glob("*/*/*/**/.*.partial")]
        shutil.rmtree(results)
    return {
        "case": name, "seed": seed, "kills": sum(phases.values()), "by_phase": dict(phases), "by_signal": dict(signals),
        "rounds": rounds, "attempts": attempts, "runs_compared": rounds * len(expected), "lost_or_different": different,
    }  # fmt: skip


def _attempt(suite: Suite, results: Path, log: Path, chance: random.Random | None) -> tuple[int, str]:
    """Run the suite in a child and perhaps kill it; exit code, and the phase it was in."""
    watch = PhaseWatch()

    def action() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
        watch.instrument()
        code = suite.run(results)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        watch.enter("over")
        return code

    pid = fork(action, log)
    watch.started()
    try:
        if chance is None:
            return wait(pid), "over"
        aim = chance.choices(list(_AIMS), [weight for weight, _ in _AIMS.values()])[0]
        entry, delay, number = (
            chance.randint(1, _AIMS[aim][1]),
            chance.uniform(0, _LONGEST_DELAY_SECONDS),
            chance.choice(_SIGNALS),
        )
        met = 0
        while entered := os.read(watch.reading, 1):  # one entry at a time, so that the delay counts from it
            met += PHASES[entered[0]] == aim
            if met == entry:
                time.sleep(delay)
                phase = watch.phase
                if phase != "over":
                    os.kill(pid, number)
                return wait(pid), phase
        return wait(pid), "over"
    finally:
        watch.close()


def _readable(suite: Suite, results: Path) -> None:
    """Whatever the instant, the records can be read: every run is finished, or a hole with a reason."""
    if not list(results.glob(f"{suite.name}/chaos/*/config.json")):
        return
    records = load_records(results, suite.name, "chaos")
    assert all(hole.kind in ("unfinished", "interrupted") and hole.why for hole in records.holes), records.holes


def _last_line(log: Path) -> str:
    lines = log.read_text().splitlines()
    return lines[-1] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="vqa")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches an optimiser step")
    parser.add_argument("--data-workers", type=int, default=0, help="threads that make batches ahead")
    options = parser.parse_args()
    changes = {"accumulation": options.accumulation, "data_workers": options.data_workers}
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(options.case, options.kills, options.seed, Path(folder), **changes)
    print(as_json(found | changes))
    return 1 if found["lost_or_different"] else 0


if __name__ == "__main__":
    sys.exit(main())
