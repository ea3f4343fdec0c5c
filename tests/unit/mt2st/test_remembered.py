"""A tower that is frozen from a point on is computed once an input: same outputs, what is counted, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mt2st.encoders.fine_tuning import fine_tune
from mt2st.encoders.freezing import Freezes
from mt2st.encoders.text_transformer import TextEncoder
from mt2st.flops import FlopCounter, count_flops
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.masked_tokens import MaskedTokenObjective
from mt2st.schedules import Switch
from mt2st.training.config import TrainConfig
from mt2st.training.remembered import FROZEN, Remembered
from mt2st.training.trainer import Trainer, TrainResult
from tests.helpers.checkpoints import bert

STEPS, POINT, ROWS = 12, 0.5, 10


class Stream:
    """Four of ten texts a step, of 3 to 6 tokens."""

    def __init__(self, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(3, 9, (ROWS, 6), generator=random)
        for row in range(ROWS):
            self.tokens[row, 3 + row % 4 :] = 0  # the padding
        self.seed = seed

    def rows(self, index: int) -> Tensor:
        return torch.randperm(ROWS, generator=torch.Generator().manual_seed(100 * self.seed + index))[:4]

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        tokens = self.tokens[self.rows(index)]
        return {"tokens": tokens, "label": tokens[:, 0] % 2}


def encoder_of(folder: Path) -> TextEncoder:
    if not folder.exists():
        bert(folder, num_hidden_layers=2, hidden_dropout_prob=0.1)
    torch.manual_seed(3)
    return TextEncoder.pretrained(str(folder), 8)


def trainer_of(
    folder: Path, *, remember: bool = True, masked: bool = False, checkpoints: Path | None = None, on_step: Any = None,
    point: float = POINT, **config: Any,
) -> Trainer:  # fmt: skip
    encoder = encoder_of(folder)
    freeze = (f"text@from={point}",)
    rates = fine_tune(encoder.parts(), learning_rate=1e-3, freeze=freeze)
    auxiliaries = []
    if masked:
        objective = MaskedTokenObjective(
            encoder.token_width, encoder.vocabulary_size, encoder.mask_id, rate=0.9, frame_ids=encoder.frame_ids
        )
        auxiliaries = [Task(objective, Switch(0.8), stream="more")]
    mixture = MT2ST(Task(ClassificationObjective(encoder.width, 2, name="kind"), stream="text"), auxiliaries)
    config = {"total_steps": STEPS, **config}
    return Trainer(
        encoder, mixture, {"text": Stream(), "more": Stream(1)},
        TrainConfig(learning_rate=1e-2, log_every_steps=1, **config), rates=rates,
        freezes=Freezes.of(encoder.parts(), freeze, remember=remember), folder=checkpoints,
        on_step=on_step or (lambda step: None),
    )  # fmt: skip


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer._bare.state_dict().items()}


def frozen_flops(result: TrainResult) -> int:
    return sum(result.ledger.by_task().get(FROZEN, {}).values())


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_learned_is_the_same_and_each_input_is_passed_once(tmp_path: Path, masked: bool) -> None:
    plain = trainer_of(tmp_path / "bert", remember=False, masked=masked)
    kept = trainer_of(tmp_path / "bert", masked=masked)
    before, after = plain.fit(), kept.fit()
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(kept)[name], value, rtol=1e-4, atol=1e-5, msg=name)
    seen: set[int] = set()
    expected = 0
    tower = encoder_of(tmp_path / "bert").eval()
    for step in range(int(POINT * STEPS), STEPS):
        new = [row for row in Stream().rows(step).tolist() if row not in seen]
        seen.update(new)
        if new:
            with torch.no_grad():
                expected += count_flops(lambda new=new: tower.encode_text(Stream().tokens[new]))
    assert len(seen) > 4
    assert frozen_flops(after) == expected > 0
    assert frozen_flops(before) == 0
    assert after.ledger.total < before.ledger.total
    last = [
        row for row in after.ledger.by_kind() if f"text@from={POINT}" in row["kind"] and "masked" not in row["kind"]
    ]
    head = count_flops(lambda: kept._bare.mixture.tasks["kind"].objective.head(torch.zeros(4, 16)))
    assert {row["tasks"]["kind"]["forward"] for row in last} == {head}, "a step costs what is left of it"


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize(("last", "budget"), [(5, False), (6, False), (10, False), (4, True), (0, True)])
def test_a_resumed_run_comes_to_the_same_bits_and_counts(tmp_path: Path, last: int, budget: bool) -> None:
    config: dict[str, Any] = {}
    if budget:  # frozen late, because a step costs next to nothing then
        flops = trainer_of(tmp_path / "bert", masked=True).fit().ledger.total
        config = {"total_steps": 0, "total_flops": flops, "point": 0.85}
    whole = trainer_of(tmp_path / "bert", masked=True, **config)
    expected = whole.fit()
    last = last or expected.steps - 1
    assert last < expected.steps
    assert frozen_flops(expected) > 0

    def stop(step: int) -> None:
        if step == last:
            first.save()
            raise Stop

    first = trainer_of(tmp_path / "bert", masked=True, checkpoints=tmp_path / "run", on_step=stop, **config)
    with pytest.raises(Stop):
        first.fit()
    second = trainer_of(tmp_path / "bert", masked=True, checkpoints=tmp_path / "run", **config)
    found = second.fit()
    assert found.ledger.by_kind() == expected.ledger.by_kind()
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(second).items())
    if budget:
        assert found.ledger.total <= config["total_flops"] + frozen_flops(found)


def test_outputs_are_the_towers_and_only_inside_reading(tmp_path: Path) -> None:
    encoder, tokens = encoder_of(tmp_path / "bert"), Stream().tokens
    freezes = Freezes.of(encoder.parts(), (f"text@from={POINT}",), remember=True)
    remembered = Remembered(freezes)
    calls: list[int] = []
    encoder.model.register_forward_pre_hook(lambda *_: calls.append(1))
    freezes.hold(0.4)
    encoder.eval()
    with torch.no_grad(), remembered.reading():
        encoder.encode_text(tokens)
    assert not remembered.active, "it is trained still"
    assert not remembered.passes()
    freezes.hold(0.5)
    with torch.no_grad():
        live = encoder.encode_text(tokens)
        assert not remembered.passes(), "nobody reads"
        calls.clear()
        with remembered.reading():
            first = encoder.encode_text(tokens[:6])
            again = encoder.encode_text(tokens[[8, 3, 3, 8]])  # known, new and twice
            same = encoder.encode_text(tokens[[8, 0]][:, :5])  # less padding
            hidden = tokens[:2].clone()
            hidden[0, 1] = encoder.mask_id
            encoder.encode_text(hidden)
    assert len(calls) == 3, "two passes, and the masked ones"
    assert [kind for kind, _ in remembered.passes()] == [f"{FROZEN}|text|[6, 6]", f"{FROZEN}|text|[1, 6]"]
    for found, rows in ((first, range(6)), (again, [8, 3, 3, 8]), (same, [8, 0])):
        torch.testing.assert_close(found.embedding, live.embedding[list(rows)], rtol=1e-5, atol=1e-6)
        real = tokens[list(rows)][:, : found.tokens.shape[1]] != 0
        expected = live.tokens[list(rows)][:, : found.tokens.shape[1]]
        torch.testing.assert_close(found.tokens[real], expected[real], rtol=1e-5, atol=1e-6)
        assert not found.tokens[~real].any()


def test_what_finds_no_room_is_computed_each_time(tmp_path: Path) -> None:
    encoder, tokens = encoder_of(tmp_path / "bert"), Stream().tokens
    freezes = Freezes.of(encoder.parts(), (f"text@from={POINT}",), remember=True)
    remembered = Remembered(freezes, most_bytes=16 * 4 * (1 + 4) * 2)  # two or three of the texts
    freezes.hold(1.0)
    encoder.eval()
    with torch.no_grad(), remembered.reading():
        first, second = (encoder.encode_text(tokens) for _ in range(2))
    assert remembered.kept in (2, 3), "what is computed each time need not be made again by a resumed run"
    (_, all_of_them), (kind, rest) = remembered.passes()
    assert 0 < rest[FROZEN]["forward"] < all_of_them[FROZEN]["forward"]
    assert kind in (f"{FROZEN}|text|[7, 6]", f"{FROZEN}|text|[8, 6]")
    torch.testing.assert_close(first.embedding, second.embedding, rtol=1e-5, atol=1e-6)


def test_a_counter_alone_is_not_seen_by_the_one_around_it() -> None:
    left, right = torch.ones(2, 3), torch.ones(3, 4)
    with FlopCounter() as around:
        left @ right
        with FlopCounter(alone=True) as inner:
            left @ right
            torch.nn.functional.scaled_dot_product_attention(*[torch.ones(1, 1, 2, 8)] * 3)
        left @ right
    assert around.total == 2 * 48
    assert inner.total == 48 + 2 * 2 * 2 * 2 * 16 // 2
