"""A process of several leaves without Python's shutdown, in which torch would abort it now and then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys
from benchmarks.suite import ranks
atexit.register(print, "shut down")
ranks._met = sys.argv[1] == "several"
print("said")
ranks.end(3)
"""


@pytest.mark.parametrize(("processes", "said"), [("alone", ["said", "shut down"]), ("several", ["said"])])
def test_what_was_said_arrives_and_the_code_too(processes: str, said: list[str]) -> None:
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, processes], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout.split("\n")[:-1], ended.stderr) == (3, said, "")
