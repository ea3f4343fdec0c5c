"""Damaged files of the field: read or refused in one line. `field_files.py` does the work, in a process without torch.

The short version runs always, the long one by `python -m pytest -m chaos
tests/integration/chaos/test_field_files_fuzz.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHORT, LONG = 40, 10_000
SCRIPT = Path(__file__).with_name("field_files.py")
ROOT = Path(__file__).parents[3]
KINDS = ("fbin", "u8bin", "i8bin", "truth", "npy", "hdf5", "hdf5-gzip")


def outcomes(kind: str, inputs: int, seed: int) -> dict[str, int]:
    if kind.startswith("hdf5"):
        pytest.importorskip("h5py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), kind, str(inputs), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout)
    assert sum(found.values()) == inputs
    assert "broken" not in found, done.stderr[-2000:]
    if not kind.startswith("hdf5"):
        assert "stopped" not in found
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_of_the_field_are_read_or_refused(kind: str) -> None:
    assert outcomes(kind, SHORT, seed=0)["refused"] > SHORT / 10


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_long_damaged_files_of_the_field(kind: str) -> None:
    print(kind, outcomes(kind, LONG, seed=1))
