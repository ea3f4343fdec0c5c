"""The estimate before a suite starts, and what is said when it does not fit."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from benchmarks.records.disk_space import RECORD_BYTES, require_space
from benchmarks.records.folder import RunFolder
from benchmarks.suite.costs import checkpoint_bytes
from mt2st.errors import Mt2stError
from mt2st.training.checkpoint import save_checkpoint

Usage = namedtuple("Usage", "total used free")


def folder_of(root: Path, seed: int) -> RunFolder:
    return RunFolder.of(root, "vqa", "default", strategy="STL", view="equal-steps", seed=seed, config={})


def test_a_checkpoint_is_as_large_as_estimated(tmp_path: Path) -> None:
    model = torch.nn.Linear(300, 200)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    place = save_checkpoint(tmp_path, 1, model, optimizer, {})
    found = sum(path.stat().st_size for path in place.iterdir())
    assert checkpoint_bytes([model, model]) <= found < 1.02 * checkpoint_bytes([model])


def test_too_little_space_is_one_line_with_estimate_and_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "not" / "there yet"
    folders = [folder_of(results, seed) for seed in range(3)]
    needed = 3 * (300 + RECORD_BYTES) + 2 * (3 * 1000 - 300)
    assert require_space(results, folders, 1000, 2, kept=300, at_once=2) == needed
    assert require_space(results, folders, 1000, 2, kept=0, at_once=9) == 3 * (RECORD_BYTES + 3 * 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, needed - 1))
    with pytest.raises(
        Mt2stError, match=r"3 runs in .* need about 24 MiB .* but 24 MiB are free; make room, .*--results.*--seeds"
    ) as caught:
        require_space(results, folders, 1000, 2, kept=300, at_once=2)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, needed))
    assert require_space(results, folders, 1000, 2, kept=300, at_once=2) == needed


def test_what_is_written_or_finished_is_not_counted_again(tmp_path: Path) -> None:
    started, finished = folder_of(tmp_path, 0), folder_of(tmp_path, 1)
    with started.lock():
        started.begin()
        (started.path / "big").write_bytes(bytes(5000))
    with finished.lock():
        finished.begin()
        finished.finish(
            {"views": [], "started_utc": "x", "steps": 1, "flops": {"total": 1}, "metrics": {}, "curve": []}, {}
        )
    assert require_space(tmp_path, [finished], 1000, 2, kept=300, at_once=2) == 0
    found = require_space(tmp_path, [started, finished], 1000, 2, kept=300, at_once=2)
    assert RECORD_BYTES - 5000 - 2000 < found <= RECORD_BYTES + 3000 - 5000


def test_a_damaged_log_is_set_aside_and_leftovers_are_removed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 0)
    with folder.lock():
        folder.begin()
        folder.append_metrics(step=1)
        (folder.path / "metrics.jsonl").write_bytes(b"\x00\x00\x00\n" + b'{"step": 2}\n')
        (folder.checkpoints / ".step-00000001.aa.partial").mkdir(parents=True)
        (folder.path / ".run.json.aa.partial").write_text("{")
        (found,) = folder.repair()
        assert "line 1, is not a JSON object" in found
        folder.begin()
        assert folder.metrics() == []
    assert not list(tmp_path.rglob(".*.partial"))
    assert (folder.path / "metrics.jsonl.damaged").exists()
