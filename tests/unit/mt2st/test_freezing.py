"""Parts that are frozen for a part of the training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mt2st.encoders.fine_tuning import Part, fine_tune
from mt2st.encoders.freezing import Freezes, entries, frozen_at
from mt2st.encoders.text_transformer import TextEncoder
from mt2st.errors import Mt2stError
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.classification import ClassificationObjective
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer, TrainResult
from tests.helpers.checkpoints import bert

STEPS = 10


class Stream:
    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
        tokens = torch.randint(3, 9, (4, 6), generator=torch.Generator().manual_seed(index))
        return {"tokens": tokens, "label": tokens[:, 0] % 2}


class Watched(Trainer):
    """Keeps the weights of the tower after each step, and whether it was in training mode."""

    def train_step(self, step: int) -> Any:
        losses = super().train_step(step)
        self.seen = getattr(self, "seen", [])
        self.modes = getattr(self, "modes", [])
        self.seen.append({name: part.detach().clone() for name, part in self._bare.encoder.model.named_parameters()})
        self.modes.append(self._bare.encoder.model.training)
        return losses


def trainer_of(folder: Path, *freeze: str, checkpoints: Path | None = None, on_step: Any = None) -> Watched:
    if not folder.exists():
        bert(folder, num_hidden_layers=2, hidden_dropout_prob=0.1)
    encoder = TextEncoder.pretrained(str(folder), 8)
    torch.manual_seed(3)
    mixture = MT2ST(Task(ClassificationObjective(encoder.width, 2, name="kind"), stream="text"))
    rates = fine_tune(encoder.parts(), learning_rate=1e-3, freeze=freeze)
    return Watched(
        encoder, mixture, {"text": Stream()}, TrainConfig(total_steps=STEPS, learning_rate=1e-2, log_every_steps=1),
        rates=rates, freezes=Freezes.of(encoder.parts(), freeze), folder=checkpoints, validate=lambda: {"one": 1.0},
        on_step=on_step or (lambda step: None),
    )  # fmt: skip


def moving(trainer: Watched, name: str) -> list[bool]:
    """Whether the parameter moved, from the second step on."""
    values = [seen[name] for seen in trainer.seen]
    return [not torch.equal(before, after) for before, after in pairwise(values)]


LOW, HIGH = "encoder.layer.0.output.dense.weight", "encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    ("freeze", "low", "high", "mode"),
    [
        ("text@until=0.3", lambda step: step >= 3, lambda step: step >= 3, lambda step: step >= 3),
        ("text@from=0.55", lambda step: step < 6, lambda step: step < 6, lambda step: step < 6),
        ("text:1@until=0.3", lambda step: step >= 3, lambda step: True, lambda step: True),
    ],
)
def test_a_part_is_still_while_it_is_frozen(tmp_path: Path, freeze: str, low: Any, high: Any, mode: Any) -> None:
    trainer = trainer_of(tmp_path / "bert", freeze)
    result = trainer.fit()
    assert moving(trainer, LOW) == [low(step) for step in range(1, STEPS)], "neither momentum nor decay moves it"
    assert moving(trainer, HIGH) == [high(step) for step in range(1, STEPS)]
    assert trainer.modes == [mode(step) for step in range(STEPS)], "no dropout in a part that is frozen whole"
    frozen_steps = sum(not low(step) for step in range(STEPS))
    rows = {freeze in row["kind"]: row for row in result.ledger.by_kind()}
    assert {held: row["steps"] for held, row in rows.items()} == {True: frozen_steps, False: STEPS - frozen_steps}
    assert rows[True]["flops_per_step"] < rows[False]["flops_per_step"], "nothing below has a backward pass"
    assert rows[True]["tasks"]["kind"]["forward"] == rows[False]["tasks"]["kind"]["forward"]


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("freeze", ["text@until=0.5", "text@from=0.5"])
@pytest.mark.parametrize("last", [4, 5, 6])
def test_resuming_across_the_point_gives_the_same_bits(tmp_path: Path, freeze: str, last: int) -> None:
    def outcome(result: TrainResult, trainer: Watched) -> Any:
        return trainer.seen[-1], (result.ledger.by_kind(), result.optimiser_flops)

    whole = trainer_of(tmp_path / "bert", freeze)
    expected, kinds = outcome(whole.fit(), whole)

    def stop(step: int) -> None:
        if step == last:
            first.save()
            raise Stop

    first = trainer_of(tmp_path / "bert", freeze, checkpoints=tmp_path / "run", on_step=stop)
    with pytest.raises(Stop):
        first.fit()
    second = trainer_of(tmp_path / "bert", freeze, checkpoints=tmp_path / "run")
    found, again = outcome(second.fit(), second)
    assert len(second.seen) == STEPS - last
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert again == kinds


def test_a_checkpoint_of_another_freeze_is_refused(tmp_path: Path) -> None:
    first = trainer_of(tmp_path / "bert", "text@until=0.5", checkpoints=tmp_path / "run")
    first.fit()
    first.save()
    with pytest.raises(Mt2stError, match="another configuration"):
        trainer_of(tmp_path / "bert", "text@until=0.6", checkpoints=tmp_path / "run").fit()


def test_which_entries_hold() -> None:
    found = entries(("text@until=0.3", "image:2@from=0.7", "temperature"))
    assert [entry.timed for entry in found] == [True, True, False]
    assert [entry.whole for entry in found] == [True, False, True]
    timed = [entry for entry in found if entry.timed]
    assert frozen_at(timed, 0.0) == frozen_at(timed, 0.29) == ("text@until=0.3",)
    assert frozen_at(timed, 0.3) == frozen_at(timed, 0.69) == ()
    assert frozen_at(timed, 0.7) == frozen_at(timed, 1.0) == ("image:2@from=0.7",)
    assert Freezes.of({}, ()).held == ()


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        ("text@until=1.5", "no point of progress between 0 and 1; write PART"),
        ("text@until=nan", "no point of progress"),
        ("text@after=0.5", "no point of progress"),
        ("text@0.5", "no point of progress"),
        ("text:@until=0.5", "names no layer"),
    ],
)
def test_other_forms_are_one_line(freeze: str, words: str) -> None:
    with pytest.raises(Mt2stError, match=words) as caught:
        fine_tune({}, freeze=(freeze,))
    assert "\n" not in str(caught.value)


def test_a_part_named_twice_and_an_unknown_one() -> None:
    with pytest.raises(Mt2stError, match="names 'text' twice"):
        entries(("text:0", "text@from=0.5"))
    with pytest.raises(Mt2stError, match="unknown part to freeze 'txt'"):
        fine_tune({"text": Part(nn.Linear(1, 1), True)}, freeze=("txt@from=0.5",))
