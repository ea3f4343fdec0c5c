"""Environment capture: real values, and None or absence instead of an error where something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.records import machine as hardware


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_commit_and_its_dirty_flag(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "one")
    clean = hardware.commit(tmp_path)
    assert clean is not None
    assert len(clean["hash"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert hardware.commit(tmp_path) == {"hash": clean["hash"], "dirty": True}


def test_outside_git_and_without_git_the_commit_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert hardware.commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.commit() is None
    assert hardware.gpus() == []


def test_environment_is_json_and_names_this_machine() -> None:
    found = hardware.environment()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["versions"]["numpy"] == np.__version__
    assert found["hardware"]["cores"] >= found["hardware"]["usable_cores"] >= 1
    assert found["hardware"]["ram_bytes"] > 2**28
    assert found["hardware"]["cpu"]
    assert "threads" in hardware.describe(found["hardware"])
    assert hardware.describe({}) == "unknown CPU, ? threads, no GPU"


def test_gpus_are_read_from_the_drivers_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 570.1'\necho 'Odd card, [N/A], 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert hardware.gpus() == [
        {"name": "NVIDIA H200", "memory_bytes": 143771 << 20, "driver": "570.1"},
        {"name": "Odd card", "memory_bytes": None, "driver": "570.1"},
    ]


PEAK = """
import numpy as np
from benchmarks.records import machine as hardware
can_reset = hardware.reset_peak_resident()
before = hardware.peak_resident_bytes()
block = np.ones(8 << 20, np.float64)  # 64 MiB, touched
assert hardware.resident_bytes() > 2**20
assert hardware.peak_resident_bytes() >= before + (48 << 20), (before, hardware.peak_resident_bytes())
del block
if can_reset:
    high = hardware.peak_resident_bytes()
    assert hardware.reset_peak_resident()
    assert hardware.peak_resident_bytes() <= high - (32 << 20), (high, hardware.peak_resident_bytes())
assert hardware.peak_gpu_bytes() >= 0
"""


def test_peak_memory_follows_an_allocation_and_can_start_anew() -> None:
    # In a small process of its own: of a large one the system may take pages back in between, which moves the measure.
    result = subprocess.run(
        [sys.executable, "-c", PEAK], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_peak_is_never_below_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's peak lags the resident memory by some pages; here it lags by everything."""
    monkeypatch.setattr(hardware, "_kernels_peak_bytes", lambda: 1)
    monkeypatch.setattr(hardware, "_largest_seen_bytes", 0)
    before = hardware.resident_bytes()
    assert hardware.peak_resident_bytes() >= before
    monkeypatch.setattr(hardware, "_largest_seen_bytes", 2**50)  # read, and given back since
    assert hardware.peak_resident_bytes() == 2**50
    monkeypatch.setattr(hardware, "_kernels_peak_bytes", lambda: 2**51)  # between two looks
    assert hardware.peak_resident_bytes() == 2**51


class FakeCuda:
    """torch.cuda's counters: what is reserved stays reserved until the cache is emptied."""

    def __init__(self, allocated: int, reserved: int) -> None:
        self.allocated, self.reserved, self.peak = allocated, reserved, reserved

    def is_initialized(self) -> bool:
        return True

    def empty_cache(self) -> None:
        self.reserved = self.allocated

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.reserved

    def max_memory_reserved(self) -> int:
        return self.peak


def test_the_gpu_peak_of_a_run_leaves_out_what_earlier_runs_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=FakeCuda(allocated=100, reserved=5_000)))
    assert hardware.peak_gpu_bytes() == 5_000
    hardware.reset_peak_gpu()
    assert hardware.peak_gpu_bytes() == 100


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, benchmarks.records.machine; print([m for m in ('torch', 'numpy', 'psutil') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
