"""Early stopping: a run ends with the weights of its best validation, killed or not, and with the FLOPs it spent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.cases import load_card
from benchmarks.cases.vqa import knobs as vqa
from benchmarks.records.read import load_records
from benchmarks.strategies.stl import SingleTask
from benchmarks.strategies.switch import Switching
from benchmarks.suite import train
from benchmarks.suite.runs import Run, train_config
from mt2st.errors import Mt2stError
from mt2st.training.checkpoint import load_weights, newest_checkpoint
from mt2st.training.config import TrainConfig, TrainSettings
from mt2st.training.trainer import Trainer
from tests.helpers.toy_models import Rows, regression
from tests.integration.test_strategies_in_a_suite import run, tiny

SCORES = {2: 0.1, 4: 0.9, 6: 0.9, 8: 0.4}  # by step; of the two best the first is kept


class Killed(BaseException):
    """A lost machine."""


def trainer(
    folder: Path | None = None, higher: bool = True, kill: int = 0, kept: dict[int, list[Tensor]] | None = None
) -> Trainer:
    encoder, tasks = regression(dropout=0.1, seed=0)

    def validate() -> Mapping[str, float]:
        return {"other": 1.0, "score": SCORES[made._progress.step]}

    def on_step(step: int) -> None:
        if kept is not None:
            kept[step] = weights(made)
        if step == kill:
            raise Killed

    config = TrainConfig(
        8, learning_rate=0.05, evaluate_every_steps=2, checkpoint_every_steps=1, keep_best=True, keep_checkpoints=1
    )
    made = Trainer(
        *(encoder, tasks, {"primary": Rows()}, config),
        folder=folder,
        validate=validate,
        best_by=("score", higher),
        on_step=on_step,
    )
    return made


def weights(made: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in made.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize(("higher", "step"), [(True, 4), (False, 2)])
def test_a_run_ends_with_the_weights_of_its_best_validation(higher: bool, step: int) -> None:
    kept: dict[int, list[Tensor]] = {}
    made = trainer(higher=higher, kept=kept)
    result = made.fit()
    assert (result.chosen_step, result.steps) == (step, 8)
    assert equal(weights(made), kept[step])
    assert not equal(kept[step], kept[8])
    assert result.curve[-1]["flops"] == result.ledger.total, "what was trained after it was spent"


@pytest.mark.parametrize("kill", range(1, 9))
def test_killed_at_any_step_it_ends_with_the_same_weights(tmp_path: Path, kill: int) -> None:
    whole = trainer()
    whole.fit()
    with pytest.raises(Killed):
        trainer(tmp_path, kill=kill).fit()
    made = trainer(tmp_path)
    result = made.fit()
    assert result.chosen_step == 4
    assert equal(weights(made), weights(whole))


def test_the_last_checkpoint_holds_the_chosen_weights(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.fit()
    assert made.saved_step is None, "the checkpoint of the last step has the last weights"
    made.save()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    other = trainer()
    load_weights(found[0], other._bare)
    assert equal(weights(other), weights(made))
    again = trainer(tmp_path)
    assert again.fit().chosen_step == 4
    assert equal(weights(again), weights(made))


def test_a_torn_copy_of_the_best_weights_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trainer(tmp_path, kill=6).fit()
    (path,) = tmp_path.glob("step-*/best.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    said: list[str] = []
    assert newest_checkpoint(tmp_path, said.append) is None
    assert "best.safetensors does not match its checksum" in said[0]


def test_without_a_validation_there_is_nothing_to_choose_by() -> None:
    encoder, tasks = regression(dropout=0.0, seed=0)
    with pytest.raises(Mt2stError, match="keep_best chooses by validation"):
        Trainer(encoder, tasks, {"primary": Rows()}, TrainConfig(2, keep_best=True))


# -- in the suite ------------------------------------------------------------------------------------------------------


def test_a_strategy_trains_in_its_own_way() -> None:
    def config(settings: Any, **changes: Any) -> TrainConfig:
        knobs = vqa.Knobs(strategies=("STL", "Switch"), settings=(settings,), **changes)
        return train_config(knobs, Run("STL", 0, 10, ("equal-steps",), 1, 0.5))

    usual = config(SingleTask())
    assert (usual.weight_decay, usual.keep_best) == (0.01, False)
    own = config(SingleTask(weight_decay=0.3, early_stopping=True))
    assert (own.weight_decay, own.keep_best) == (0.3, True)
    assert config(Switching()) == usual
    every = config(SingleTask(), train=TrainSettings(weight_decay=0.1, keep_best=True))
    assert (every.weight_decay, every.keep_best) == (0.1, True)
    with pytest.raises(Mt2stError, match=r"weight_decay = -1.0"):
        config(SingleTask(weight_decay=-1.0))


def test_the_test_split_is_read_once_with_the_chosen_weights(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = load_card("vqa").spec.validation_id
    scores = iter((0.2, 0.9, 0.3, 0.1))
    read: list[int] = []
    fit = train.Trainer.fit

    def scripted(self: Trainer) -> Any:
        validate = self.validate
        assert validate is not None
        self.validate = lambda: {**validate(), metric: next(scores)}
        result = fit(self)
        read.append(result.chosen_step)
        return result

    monkeypatch.setattr(train.Trainer, "fit", scripted)
    knobs = tiny(
        tmp_path_factory.mktemp("data"),
        strategies=("STL",),
        settings=(SingleTask(early_stopping=True),),
        views=("equal-steps",),
        steps=8,
        validations=4,
    )
    assert run(knobs, tmp_path)[0] == 0
    (record,) = load_records(tmp_path, "vqa", "tiny").finished
    assert read == [record.values["chosen_step"]] == [4]
    assert record.steps == 8
    assert record.metric(metric, "validation") == 0.9
    assert record.values["config"]["strategy"]["early_stopping"] is True
    assert [row[metric] for row in record.curve] == [0.2, 0.9, 0.3, 0.1]
