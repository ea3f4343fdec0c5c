"""Killed at any step, a run resumes to the bits of one that was never killed: weights, optimiser, ledger and curve."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mt2st.training.checkpoint
from mt2st.errors import Mt2stError
from mt2st.predict import predict_answers
from mt2st.schedules import Constant, Diminish, Sampled, Schedule, Switch
from mt2st.training.checkpoint import load_weights, newest_checkpoint
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer, TrainResult
from tests.helpers.tiny import DrawnSplit, mixture, streams, tiny_encoder

STEPS = 8
KINDS: dict[str, tuple[dict[str, Schedule], dict[str, Any]]] = {
    "switch": ({"contrastive": Switch(0.5)}, {}),
    "fade": ({"contrastive": Diminish(rate=4.0, cutoff=0.2), "masked_lm": Switch(0.25)}, {}),
    "sampled-accumulated": (
        {"masked_lm": Sampled(Diminish(rate=1.0)), "matching": Sampled(Constant())},
        {"accumulation": 2},
    ),
}


class Killed(BaseException):
    """Stands for a lost machine: nothing of ours catches it."""


def build(
    folder: Path | None, kind: str = "switch", *, log: Callable[[Any], None] = lambda line: None, **changes: Any
) -> Trainer:
    """A run of 8 steps with batches of 3 images, so that epochs end in mid-batch.

    Validated by its answers, without fixed seeds.
    """
    schedules, more = KINDS[kind]
    on_step = changes.pop("on_step", lambda step: None)
    identity = changes.pop("identity", {"data": "drawn"})
    encoder = tiny_encoder()
    tasks = mixture(encoder, **(changes.pop("schedules", None) or schedules))
    split = DrawnSplit(num_images=5)
    tokens = encoder.towers.tokenize(split.question_texts())

    def validate() -> dict[str, float]:
        answers = predict_answers(encoder, tasks.primary.objective, split, tokens)
        torch.rand(3)  # validation may draw numbers without changing the run
        return {"confidence": float(answers.confidence.mean()), "sum": float(answers.prediction.sum())}

    settings = {"evaluate_every_steps": 3, "checkpoint_every_steps": 2, "log_every_steps": 3, **more, **changes}
    return Trainer(
        encoder,
        tasks,
        streams(encoder, images=3),
        TrainConfig(STEPS, **settings),
        folder=folder,
        validate=validate,
        on_step=on_step,
        identity=identity,
        log=log,
    )


def kill_at(wanted: int) -> Callable[[int], None]:
    def on_step(step: int) -> None:
        if step == wanted:
            raise Killed

    return on_step


def outcome(run: Trainer, result: TrainResult) -> dict[str, Any]:
    """Everything that must be the same bits; not the seconds."""
    curve = [{name: value for name, value in row.items() if name != "seconds"} for row in result.curve]
    optimizer = run._optimizer.optimizer
    states = [optimizer.state[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    moments = [(state["step"], state["exp_avg"], state["exp_avg_sq"]) for state in states if state]
    return {"weights": run._bare.state_dict(), "moments": moments, "ledger": result.ledger.state_dict(), "curve": curve}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(left, right) for left, right in zip(one, other, strict=True))
    return bool(one == other)


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, Any]]:
    """The outcome of each kind of run, never interrupted and never saved."""
    outcomes = {}
    for kind in KINDS:
        run = build(None, kind)
        outcomes[kind] = outcome(run, run.fit())
    return outcomes


KILL_POINTS = [  # before, on and after each switch; a batch of 3 of 8 images ends an epoch in its middle
    *(("switch", step) for step in range(1, STEPS + 1)),
    *(("fade", step) for step in (2, 3, 5)),
    *(("sampled-accumulated", step) for step in (3, 5, 8)),
]


@pytest.mark.parametrize(("kind", "step"), KILL_POINTS)
def test_killed_at_any_step_it_resumes_to_the_same_bits(
    tmp_path: Path, whole: dict[str, Any], kind: str, step: int
) -> None:
    with pytest.raises(Killed):
        build(tmp_path, kind, on_step=kill_at(step)).fit()
    assert len(list(tmp_path.iterdir())) == min(2, (step - 1) // 2)  # killed before the save of its own step
    torch.rand(5)
    run = build(tmp_path, kind)
    assert run.resume() == (step - 1) // 2 * 2
    assert same(outcome(run, run.fit()), whole[kind])


def test_killed_again_and_again(tmp_path: Path, whole: dict[str, Any]) -> None:
    for step in (3, 3, 4, 6, 7, 8):
        with pytest.raises(Killed):
            build(tmp_path, on_step=kill_at(step)).fit()
    run = build(tmp_path)
    assert same(outcome(run, run.fit()), whole["switch"])


def test_a_finished_run_resumes_to_itself(tmp_path: Path, whole: dict[str, Any]) -> None:
    build(tmp_path).fit()
    run = build(tmp_path)
    assert same(outcome(run, run.fit()), whole["switch"])


def test_killed_between_any_two_operations_of_a_save_nothing_is_lost(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth save (step 8) dies before each of its operations in turn; what it leaves lying about is left there."""
    points = ("save_model", "save_file", "sync_file", "file_hash", "write_sealed_json", "sync_folder", "_read_state")
    with pytest.raises(Killed):
        build(tmp_path / "before", on_step=kill_at(7)).fit()
    for point in (*points, "rename"):
        folder = tmp_path / point
        shutil.copytree(tmp_path / "before", folder)
        run = build(folder)

        def on_step(step: int, point: str = point) -> None:
            if step != STEPS:
                return

            def die(*args: Any, **kwargs: Any) -> None:
                raise Killed

            if point == "rename":
                monkeypatch.setattr(Path, "rename", die)
            else:
                monkeypatch.setattr(mt2st.training.checkpoint, point, die)
            monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)

        run.on_step = on_step
        with pytest.raises(Killed):
            run.fit()
        monkeypatch.undo()
        assert newest_checkpoint(folder) is not None, point
        resumed = build(folder)
        assert resumed.resume() in (6, 8)
        assert same(outcome(resumed, resumed.fit()), whole["switch"]), point


def test_a_process_that_is_really_killed(tmp_path: Path, whole: dict[str, Any]) -> None:
    """SIGKILL in mid-run, in a process of its own; resumed here."""
    program = f"""
import os, signal, sys
from pathlib import Path
from test_resume import build
build(Path({str(tmp_path)!r}), on_step=lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == 5 else None).fit()
"""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(str(path) for path in (root, root / "tests", root / "tests" / "integration"))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=400, check=False
    )
    assert found.returncode == -signal.SIGKILL, found.stderr.decode()[-2000:]
    run = build(tmp_path)
    assert run.resume() == 4
    assert same(outcome(run, run.fit()), whole["switch"])


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        with pytest.raises(Killed):
            build(tmp_path, on_step=kill_at(7)).fit()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000006"]
        return tmp_path

    @pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
    @pytest.mark.parametrize("damage", ["torn", "flipped", "missing", "empty"])
    def test_a_damaged_checkpoint_is_named_and_passed_over(
        self, folder: Path, whole: dict[str, Any], name: str, damage: str
    ) -> None:
        path = folder / "step-00000006" / name
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            middle = len(content) // 2
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            path.write_bytes({"torn": content[:-7], "flipped": flipped, "empty": b""}[damage])
        lines: list[Any] = []
        run = build(folder, log=lines.append)
        assert run.resume() == 4
        (warning,) = [line["message"] for line in lines if line["event"] == "warning"]
        assert "checkpoint passed over" in warning
        assert name in warning
        assert "delete that checkpoint folder" in warning
        assert same(outcome(run, run.fit()), whole["switch"])

    def test_all_damaged_starts_anew_and_says_so(self, folder: Path, whole: dict[str, Any]) -> None:
        for path in folder.iterdir():
            (path / "model.safetensors").write_bytes(b"")
        lines: list[Any] = []
        run = build(folder, log=lines.append)
        result = run.fit()
        assert [line["event"] for line in lines if line["event"] == "warning"] == ["warning"] * 2
        assert same(outcome(run, result), whole["switch"])

    def test_files_that_are_not_ours_are_left_alone(self, folder: Path) -> None:
        (folder / "step-notes").mkdir()
        (folder / "step-00000099.txt").write_text("mine")
        (folder / "step-00000077").write_text("a file, no folder")
        run = build(folder)
        assert run.resume() == 6
        run.fit()
        assert (folder / "step-notes").is_dir()
        assert (folder / "step-00000099.txt").read_text() == "mine"

    def test_an_edited_state_is_noticed(self, folder: Path) -> None:
        path = folder / "step-00000006" / "state.json"
        state = json.loads(path.read_text())
        state["progress"]["step"] = 7
        path.write_text(json.dumps(state))
        assert build(folder).resume() == 4

    def test_only_the_last_ones_are_kept(self, folder: Path) -> None:
        build(folder, keep_checkpoints=2).fit()
        assert sorted(path.name for path in folder.iterdir()) == ["step-00000006", "step-00000008"]

    def test_weights_alone_can_be_loaded(self, folder: Path) -> None:
        run = build(folder)
        run.resume()
        other = build(None)
        load_weights(folder / "step-00000006", other._bare)
        assert same(run._bare.state_dict(), other._bare.state_dict())
        with pytest.raises(
            Mt2stError, match=r"model\.safetensors does not fit this model .*use the run's own configuration"
        ):
            load_weights(folder / "step-00000006", torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1e-3},
        {"seed": 1},
        {"identity": {"data": "other"}},
        {"schedules": {"contrastive": Switch(0.4)}},
        {"schedules": {"contrastive": Switch(0.5), "masked_lm": Constant()}},
    ],
    ids=["learning-rate", "seed", "data", "switch-point", "task"],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(Killed):
        build(tmp_path, on_step=kill_at(3)).fit()
    message = "written under another configuration, on other data or by another version; use a new run folder"
    with pytest.raises(Mt2stError, match=f"step-00000002 was {message}"):
        build(tmp_path, **changes).fit()
    assert (tmp_path / "step-00000002").is_dir()  # and it is not deleted


class Cosine:
    """A schedule that is no dataclass."""

    def __init__(self, initial: float) -> None:
        self.initial = initial

    def __call__(self, progress: float) -> float:
        return self.initial * 0.5 * (1 + math.cos(math.pi * progress))


def _fading(rate: float) -> Callable[[float], float]:
    return lambda progress: rate * (1 - progress)


@pytest.mark.parametrize("make", [Cosine, _fading, Constant, lambda rate: Sampled(Cosine(rate))])
def test_schedules_of_any_kind_are_told_apart_by_their_parameters(tmp_path: Path, make: Callable[..., Any]) -> None:
    with pytest.raises(Killed):
        build(tmp_path, schedules={"contrastive": make(1.0)}, on_step=kill_at(3)).fit()
    with pytest.raises(Mt2stError, match="was written under another configuration"):
        build(tmp_path, schedules={"contrastive": make(2.0)}).resume()
    assert build(tmp_path, schedules={"contrastive": make(1.0)}).resume() == 2


def test_a_schedule_that_cannot_be_told_apart_is_an_error(tmp_path: Path) -> None:
    schedule = Cosine(1.0)
    schedule.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(Mt2stError, match=r"test_resume\.Cosine cannot be told .* 'lock' is a _thread\.lock; make"):
        build(tmp_path, schedules={"contrastive": schedule})


def test_checkpoints_by_time(tmp_path: Path) -> None:
    build(tmp_path, checkpoint_every_steps=0, checkpoint_every_seconds=1e-6, keep_checkpoints=20).fit()
    assert len(list(tmp_path.iterdir())) == STEPS
