"""What surrounds the loop: signals that end it between two steps, and trackers."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.tracking import GeneralTracker, get_available_trackers
from torch import Tensor

from mt2st.errors import Mt2stError
from mt2st.training.config import TrainConfig
from mt2st.training.guards import check_trackers, stop_signals
from mt2st.training.trainer import Trainer, TrainingInterrupted
from tests.helpers.toy_models import Rows, regression


def trainer(
    config: TrainConfig,
    *,
    dropout: float = 0.0,
    seed: int = 0,
    rows: Any = None,
    folder: Path | None = None,
    **more: Any,
) -> Trainer:
    options = {key: more.pop(key) for key in ("validate", "log", "on_step", "identity", "trackers") if key in more}
    encoder, tasks = regression(dropout=dropout, seed=seed, **more)
    return Trainer(encoder, tasks, {"primary": rows or Rows()}, config, folder=folder, **options)


def weights(run: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


main_thread_only = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="Python delivers signals to the main thread only"
)


@main_thread_only
class TestInterrupts:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_the_step_saves_and_raises(self, tmp_path: Path, number: int) -> None:
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        run = trainer(
            TrainConfig(10), folder=tmp_path, on_step=lambda step: os.kill(os.getpid(), number) if step == 4 else None
        )
        with pytest.raises(TrainingInterrupted, match="interrupted after step 4 of 10; checkpoint in"):
            run.fit()
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
        again = trainer(TrainConfig(10), folder=tmp_path)
        assert again.fit().steps == 10
        whole = trainer(TrainConfig(10))
        whole.fit()
        assert equal(weights(again), weights(whole))

    def test_without_a_folder_it_says_that_nothing_was_saved(self) -> None:
        run = trainer(TrainConfig(10), on_step=lambda step: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match="after step 1 of 10; no checkpoint, for no folder was given"):
            run.fit()

    def test_a_second_signal_acts_at_once(self) -> None:
        def twice(step: int) -> None:
            first = signal.getsignal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            while signal.getsignal(signal.SIGINT) is first:  # two signals that wait together arrive as one
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

        with pytest.raises(KeyboardInterrupt) as caught:
            trainer(TrainConfig(10), on_step=twice).fit()
        assert not isinstance(caught.value, TrainingInterrupted)

    def test_in_another_thread_no_handler_is_set(self) -> None:
        found: list[bool] = []

        def run() -> None:
            with stop_signals() as stop:
                found.append(stop.is_set())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert found == [False]


class Notebook(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "notebook"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.lines: list[tuple[int | None, dict[str, Any]]] = []
        self.finished = False

    @property
    def tracker(self) -> Any:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        self.finished = True


class TestTrackers:
    def test_a_tracker_gets_config_numbers_and_its_end(self) -> None:
        notebook = Notebook()
        trainer(TrainConfig(4, log_every_steps=2), validate=lambda: {"accuracy": 0.25}, trackers=(notebook,)).fit()
        assert notebook.config["learning_rate"] == 2e-3
        assert [step for step, _ in notebook.lines] == [2, 4, 4]
        assert notebook.lines[-1][1]["accuracy"] == 0.25
        assert all(isinstance(value, int | float) for _, values in notebook.lines for value in values.values())
        assert notebook.finished

    def test_tensorboard_writes_its_files(self, tmp_path: Path) -> None:
        if "tensorboard" not in {str(name) for name in get_available_trackers()}:
            pytest.skip("tensorboard is not installed (extra `trackers`)")
        trainer(TrainConfig(2, log_every_steps=1), folder=tmp_path, trackers=("tensorboard",)).fit()
        assert list(tmp_path.rglob("events.out.tfevents.*"))

    def test_what_cannot_be_started_is_an_error(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with pytest.raises(Mt2stError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
            check_trackers(["tensorbord"], tmp_path)
        monkeypatch.setattr("mt2st.training.guards.get_available_trackers", lambda: [])
        with pytest.raises(Mt2stError, match=r"tracker 'wandb' is not installed; `pip install 'mt2st\[trackers\]'`"):
            check_trackers(["wandb"], tmp_path)
        monkeypatch.setattr("mt2st.training.guards.get_available_trackers", lambda: ["tensorboard"])
        with pytest.raises(Mt2stError, match="tracker 'tensorboard' writes files, but no folder was given"):
            check_trackers(["tensorboard"], None)
