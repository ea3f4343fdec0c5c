"""The campaigns of this folder: short always, long with `python -m pytest -m chaos tests/integration/chaos`.

Seeds are fixed.

Each runs in a process of its own, for it forks, kills and preloads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(900)  # on a machine that has other work to do
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc")


def script(name: str, *arguments: object, seconds: float, codes: Sequence[int] = (0,)) -> dict[str, Any]:
    """Run a campaign; its report. Another exit code than `codes` fails the test with all that was printed."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(str(path) for path in (HERE, HERE.parents[2])),
    }
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    if ended.returncode == 77:
        pytest.skip(ended.stderr.strip())
    assert ended.returncode in codes, f"{' '.join(command)}\n{ended.stdout[-5000:]}\n{ended.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(" ".join(command[1:]), found)
    return found


@LINUX
def test_a_suite_killed_at_random_instants_loses_nothing() -> None:
    found = script("kills.py", "--case", "vqa", "--kills", 4, "--accumulation", 2, "--data-workers", 2, seconds=850)
    assert found["kills"] == 4
    assert found["runs_compared"] >= 5
    assert found["lost_or_different"] == []


@LINUX
def test_a_fault_of_a_file_operation_is_mended_by_a_plain_rerun() -> None:
    found = script("faults.py", "--every", 41, "--first", 3, seconds=850)
    assert found["operations_of_a_run"] > 100
    assert found["injections"] >= 4
    assert found["failed_or_different"] == []


@LINUX
def test_processes_that_start_one_suite_at_once_share_it() -> None:
    found = script("many.py", "--processes", 8, "--rounds", 1, seconds=850)
    assert found["lost_or_mixed"] == []


@LINUX
@pytest.mark.chaos
def test_the_soak_starts() -> None:
    """A short training: too little to tell whether memory is flat (exit code 0 or 1)."""
    assert script("soak.py", "--steps", 20, seconds=850, codes=(0, 1))["steps"] == 20


@LINUX
@pytest.mark.chaos
def test_the_soak_of_suites_starts() -> None:
    assert script("soak.py", "--minutes", 0, seconds=850, codes=(0, 1))["suites"] == 6


@LINUX
@pytest.mark.chaos
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("case", ["vqa", "retrieval"])
@pytest.mark.parametrize(("accumulation", "workers", "kills"), [(1, 0, 30), (2, 2, 30)])
def test_long_kills(case: str, accumulation: int, workers: int, kills: int) -> None:
    knobs = ("--accumulation", accumulation, "--data-workers", workers)
    found = script("kills.py", "--case", case, "--kills", kills, "--seed", 1, *knobs, seconds=5400)
    assert found["kills"] == kills
    assert found["lost_or_different"] == []


@LINUX
@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_long_faults_every_operation_in_every_mode() -> None:
    assert script("faults.py", "--every", 1, seconds=7200)["failed_or_different"] == []


@LINUX
@pytest.mark.chaos
@pytest.mark.timeout(5400)
def test_long_many_at_once() -> None:
    assert script("many.py", "--processes", 8, "--rounds", 20, seconds=5400)["lost_or_mixed"] == []


@LINUX
@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_long_soak() -> None:
    assert script("soak.py", "--minutes", 30, seconds=3600)["flat"]


@LINUX
@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_memory_of_a_long_training_is_flat() -> None:
    assert script("soak.py", "--steps", 10_000, seconds=3600)["flat"]


@LINUX
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", ["worker", "driver", "rank"])
def test_long_kills_of_workers_driver_and_ranks(what: str) -> None:
    found = script("jobs.py", "--what", what, "--kills", 20, seconds=3600)
    assert found["kills"] == 20
    assert found["bad"] == []
