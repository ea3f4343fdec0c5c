"""The campaign of `index_kills.py`: one kill of a FAISS build always, 20 kills of all kinds with `-m chaos`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT, ROOT = Path(__file__).with_name("index_kills.py"), Path(__file__).parents[3]


def campaign(target: str, kills: int, seed: int, most_seconds: float = 3.0) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--target", target, "--kills", str(kills), "--seed", str(seed)),
            *("--most-seconds", str(most_seconds)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["found"].values()) == kills
    return found


def test_one_kill() -> None:
    pytest.importorskip("faiss")
    campaign("faiss", 1, seed=0)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("target", "kills", "most_seconds"), [("faiss", 8, 0.15), ("milvus", 8, 3.0), ("database", 6, 3.0)]
)
def test_long_kills(target: str, kills: int, most_seconds: float) -> None:
    if target != "faiss":
        pytest.importorskip("milvus_lite")
    print(campaign(target, kills, seed=1, most_seconds=most_seconds))
