"""Start the same suite in several processes at once, again and again: each time one complete, correct set of results.

    python tests/integration/chaos/many.py --processes 8 --rounds 20

The processes prepare the data as well, into one folder. Prints one JSON object; exit code 1 if anything was lost or
mixed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from chaos_suites import CASES, Suite, as_json, fork, wait

from tests.helpers.tiny_suite import differences


def campaign(name: str, processes: int, rounds: int, folder: Path, **changes: Any) -> dict[str, Any]:
    """Each round: fresh data and results folders, `processes` children, then comparison with a run of one process."""
    whole = Suite(name, folder / "data", **changes)
    if code := wait(fork(lambda: whole.run(folder / "whole"), folder / "whole.log")):
        raise AssertionError(f"the suite alone ended with {code}: {(folder / 'whole.log').read_text()}")
    expected = whole.outcome(folder / "whole")
    bad: list[str] = []
    trained: list[int] = []
    for number in range(rounds):
        place = folder / f"round-{number}"
        place.mkdir()
        suite = Suite(name, place / "data", **changes)
        logs = [place / f"process-{process}.log" for process in range(processes)]
        codes = [wait(pid) for pid in [fork(lambda: suite.run(place / "results"), log) for log in logs]]  # noqa: B023
        bad += [f"round {number}: process {process} ended with {code}" for process, code in enumerate(codes) if code]
        bad += [f"round {number}: {text}" for text in differences(expected, suite.outcome(place / "results"))]
        bad += [f"round {number}: {path} is left over" for path in place.rglob("*.partial")]
        bad += [f"round {number}: no {name_}" for name_ in ("TABLE.md", "report.html") if not list(place.rglob(name_))]
        # A run that was trained twice would have been skipped by nobody: its summary line stands in one log only.
        trained.append(sum(log.read_text().count(" TFLOPs, ") for log in logs))
        shutil.rmtree(place)
    bad += [
        f"round {number}: {count} runs trained, not {len(expected)}"
        for number, count in enumerate(trained)
        if count != len(expected)
    ]
    return {"case": name, "processes": processes, "rounds": rounds, "runs_a_round": len(expected), "lost_or_mixed": bad}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="vqa")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(options.case, options.processes, options.rounds, Path(folder), steps=4)
    print(as_json(found))
    return 1 if found["lost_or_mixed"] else 0


if __name__ == "__main__":
    sys.exit(main())
