"""Two processes equal one on the joined batch: contrastive loss, batch normalisation, whole trainings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.two_processes import (
    BALANCED,
    LISTENERS,
    NORMS,
    TRAININGS,
    listen,
    model_and_batch,
    normalise,
    step,
    train,
)


@pytest.mark.timeout(240)
def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    launch(tmp_path)
    for loss in ("softmax", "sigmoid"):
        check_contrastive(loss, *(torch.load(tmp_path / f"{loss}-{rank}.pt", weights_only=True) for rank in (0, 1)))
    for name in NORMS:
        check_norm(name, *(torch.load(tmp_path / f"norm-{name}-{rank}.pt", weights_only=True) for rank in (0, 1)))
    plain, sharded = (torch.load(tmp_path / f"{name}-0.pt", weights_only=True) for name in ("plain", "sharded"))
    assert all(torch.equal(plain["weights"][name], weights) for name, weights in sharded["weights"].items())
    alone = train("plain", tmp_path / "alone", rank=0, rows=8)
    for name in TRAININGS:
        check_training(name, alone, *(torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)))
    for name in BALANCED:
        alone = train(name, tmp_path / f"alone-{name}", rank=0, rows=8)
        if name in (
            "UPGrad",
            "PCGrad",
            "PCD",
        ):  # each process multiplies the joint gradients: 6 steps of 3 tasks, 3 of 2
            alone["flops"] += sum(steps * 2 * (tasks * tasks + tasks) * 40 for steps, tasks in ((6, 3), (3, 2)))
        check_training(name, alone, *(torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)))
    for name in LISTENERS:
        check_listening(
            listen(name, rows=8),
            *(torch.load(tmp_path / f"listen-{name}-{rank}.pt", weights_only=True) for rank in (0, 1)),
        )


def launch(folder: Path) -> None:
    """Both ranks of `two_processes.py`, as a launcher would start them; none is left behind."""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
    }
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    ranks = []
    try:
        for rank in ("0", "1"):
            command = [sys.executable, str(root / "tests" / "helpers" / "two_processes.py"), str(folder), rank]
            ranked = {**environment, "RANK": rank, "LOCAL_RANK": rank}
            ranks.append(subprocess.Popen(command, env=ranked, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL))
        for process in ranks:
            _, errors = process.communicate(timeout=400)
            assert process.returncode == 0, errors.decode()[-3000:]
    finally:
        for process in ranks:
            process.kill()
            process.wait()


def check_contrastive(loss: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    """The mean of the local losses, and every gradient after averaging.

    Captions repeat within and across the processes.
    """
    expected = step(*model_and_batch(loss))
    torch.testing.assert_close((first.pop("loss") + second.pop("loss")) / 2, expected.pop("loss"))
    assert set(first) == set(second) == set(expected)
    for name, gradient in expected.items():
        for found in (first, second):
            torch.testing.assert_close(found[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def check_norm(name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Outputs, gradients of input and parameters, and running statistics of torch's own class on all eight images."""
    expected = normalise(name, slice(0, 8), joint=False)
    assert set(first) == set(second) == set(expected)
    assert not torch.equal(first["output/True"], normalise(name, slice(0, 4), joint=False)["output/True"])
    for part, whole in expected.items():
        if part.startswith(("output/", "input/")):
            found = torch.cat([first[part], second[part]])
            if part.startswith("input/"):
                found = found / 2  # each process's loss is the mean over half of the images
            torch.testing.assert_close(found, whole, msg=lambda text, part=part: f"{name}, {part}: {text}")
            continue
        for own in (first, second):
            torch.testing.assert_close(own[part], whole, msg=lambda text, part=part: f"{name}, {part}: {text}")


def check_training(name: str, alone: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same weights everywhere, also through a switch; the FLOPs of both; only the first process logs."""
    for parameter, expected in alone["weights"].items():
        assert torch.equal(first["weights"][parameter], second["weights"][parameter])
        torch.testing.assert_close(first["weights"][parameter], expected, rtol=1e-5, atol=1e-6)
    assert first["flops"] == second["flops"] == alone["flops"]
    assert first["lines"] > 0
    assert second["lines"] == 0
    # One rank got the signal at step 4; both agree at the next log line, save, stop there, and go on together.
    assert first["stopped"] == second["stopped"]
    assert ("interrupted after step 6 of 12; checkpoint in" in first["stopped"]) == (name != "plain")


def check_listening(alone: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    """Both processes hear the same number and stop at the same step, which is where one process stops."""
    assert first["heard"] == second["heard"]
    assert [(step, stopped) for step, _, stopped in first["heard"]] == [
        (step, stopped) for step, _, stopped in alone["heard"]
    ]
    assert first["heard"][-1][2]
    for (_, expected, _), (_, found, _) in zip(alone["heard"], first["heard"], strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert (first["flops"], first["steps"]) == (second["flops"], second["steps"]) == (alone["flops"], alone["steps"])
    assert alone["flops"] <= 20_000
    for parameter, expected in alone["weights"].items():
        assert torch.equal(first["weights"][parameter], second["weights"][parameter])
        torch.testing.assert_close(first["weights"][parameter], expected, rtol=1e-4, atol=1e-6)
