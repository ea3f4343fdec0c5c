"""Kill workers, the driver or a rank at random instants, and compare what the suite becomes with an undisturbed one.

    python tests/integration/chaos/jobs.py --what worker --kills 20 --seed 0

What can be killed is a row of `VICTIMS`; another engine is another row. Prints one JSON object: kills by signal, runs
compared, how long it took until nothing was left of a killed suite, and all that was lost, differs or is left over.
Exit code 1 if there is any of it.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.records.read import load_records  # noqa: E402
from tests.helpers.tiny_suite import Command, arguments, differences, outcome, owner, run_folders, until  # noqa: E402

_SIGNALS = (signal.SIGKILL,) * 8 + (signal.SIGTERM, signal.SIGINT)
_KNOBS = ("--strategies", "STL", "MTL", "Switch", "--steps", 100, "--checkpoint-every-steps", 10)
_KILLS_A_ROUND = 5
_START_SHARE = 0.25  # of the kills come at any instant since the start, the others while a run is in work
_LONGEST_START_SECONDS = 8.0
_LONGEST_DELAY_SECONDS = 2.5
_ENDS_WITHIN_SECONDS = 90.0  # all processes of a suite, once its driver or a rank was stopped or killed


@dataclass(frozen=True)
class Victims:
    """Attributes: options of the suite's command; who may be killed; whether the command itself ends of it."""

    options: tuple[object, ...]
    among: Callable[[Command], list[psutil.Process]]
    ends_the_command: bool


def _driver(command: Command) -> list[psutil.Process]:
    return [psutil.Process(command.process.pid)] if command.process.poll() is None else []


def _ranks(command: Command) -> list[psutil.Process]:
    return [process for process in map(command.rank, (0, 1)) if process is not None]


VICTIMS = {
    "worker": Victims(("--jobs", 2), Command.workers, ends_the_command=False),
    "driver": Victims(("--jobs", 2), _driver, ends_the_command=True),
    "rank": Victims(("--processes", 2), _ranks, ends_the_command=True),
}


class Campaign:
    """Rounds of: a fresh results folder, attempts that are disturbed, one that is let through, comparison."""

    def __init__(self, what: str, kills: int, seed: int, minutes: float, folder: Path) -> None:
        self._victims, self._kills, self._folder = VICTIMS[what], kills, folder
        self._until = time.monotonic() + 60 * minutes
        self._chance = random.Random(f"{what}:{seed}")
        self._signals: Counter[str] = Counter()
        self._attempts = 0
        self._slowest_end = 0.0
        self.bad: list[str] = []

    def run(self) -> dict[str, Any]:
        # Several jobs give the bits of one process; several processes give their own.
        options = self._victims.options if "--processes" in self._victims.options else ("--jobs", 1)
        undisturbed = self._start(self._folder / "whole", options)
        if code := undisturbed.wait(600):
            raise AssertionError(f"the undisturbed suite ended with {code}:\n{undisturbed.printed}")
        expected = outcome(self._folder / "whole")
        rounds = 0
        while self._more(self._kills):
            results = self._folder / f"round-{rounds}"
            rounds += 1
            until_kills = min(self._kills, self._signals.total() + _KILLS_A_ROUND)
            while self._attempt(results, until_kills):
                continue
            self.bad += [f"round {rounds}: {text}" for text in differences(expected, self._outcome(results))]
            self.bad += [f"round {rounds}: {path} is left over" for path in results.rglob("*.partial")]
        return {
            "kills": self._signals.total(), "by_signal": dict(self._signals), "rounds": rounds,
            "attempts": self._attempts, "runs_compared": rounds * len(expected),
            "slowest_end_seconds": round(self._slowest_end, 1), "bad": self.bad,
        }  # fmt: skip

    def _more(self, kills: int) -> bool:
        return self._signals.total() < kills and time.monotonic() < self._until

    def _outcome(self, results: Path) -> dict[str, Any]:
        return {} if load_records(results, "vqa", "default").holes else outcome(results)

    def _start(self, results: Path, options: tuple[object, ...]) -> Command:
        self._attempts += 1
        argv = arguments("vqa", results, self._folder / "data", *_KNOBS, *options)
        return Command(argv, self._folder / "command.log")

    def _attempt(self, results: Path, until_kills: int) -> bool:
        """Run the suite's command, killing victims while there are kills left; whether it must be started again."""
        command = self._start(results, self._victims.options)
        killed = False
        try:
            while self._more(until_kills) and self._kill(command, results):
                killed = True
                if self._victims.ends_the_command:
                    break
            began = time.monotonic()
            ends = killed and self._victims.ends_the_command
            code = command.wait(_ENDS_WITHIN_SECONDS if ends else 600)
            self._none_left(command, code)
            if ends:
                self._slowest_end = max(self._slowest_end, time.monotonic() - began)
            return self._goes_on(command, code, killed)
        finally:
            command.end()

    def _kill(self, command: Command, results: Path) -> bool:
        """Kill one victim at a random instant; False when the command has ended first."""
        chance = self._chance
        if chance.random() < _START_SHARE:
            delay = chance.uniform(0, _LONGEST_START_SECONDS)
        else:
            until(lambda: command.process.poll() is not None or any(map(owner, run_folders(results))), 120)
            delay = chance.uniform(0, _LONGEST_DELAY_SECONDS)
        time.sleep(delay)
        among: list[psutil.Process] = until(
            lambda: self._victims.among(command) or [None] * (command.process.poll() is not None), 120
        )
        victim, how = chance.choice(among), chance.choice(_SIGNALS)
        if victim is None or command.process.poll() is not None:
            return False
        try:
            victim.send_signal(how)
        except psutil.NoSuchProcess:
            return command.process.poll() is None
        self._signals[how.name] += 1
        return True

    def _none_left(self, command: Command, code: int) -> None:
        try:
            until(lambda: not command.offspring(), _ENDS_WITHIN_SECONDS)
        except TimeoutError:
            left = [" ".join(process.cmdline()[:5]) for process in command.offspring()]
            self.bad.append(f"attempt {self._attempts} ended with {code} and left processes: {left}")

    def _goes_on(self, command: Command, code: int, killed: bool) -> bool:
        """Whether the same command has more to do; ends that nothing explains are noted."""
        if code == 0:
            return False
        orderly = code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 2, 130)
        twice = code == 1 and "failed twice without a newer checkpoint" in command.printed  # as it is meant
        if not killed or not (orderly or twice) or "Traceback" in command.printed:
            self.bad.append(f"attempt {self._attempts} ended with {code}: {command.printed[-2000:]}")
            return len(self.bad) < 5
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=sorted(VICTIMS), default="worker")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=120.0, help="after so long nothing more is killed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = Campaign(options.what, options.kills, options.seed, options.minutes, Path(folder)).run()
    print(json.dumps({"what": options.what, "seed": options.seed, **found}))
    return 1 if found["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
