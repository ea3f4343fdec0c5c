"""The optimiser's operations and validation, which are outside the training FLOPs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mt2st.flops import FlopCounter
from mt2st.schedules import Switch
from mt2st.training.side_costs import ADAMW_FLOPS, CLIP_FLOPS, DECAY_FLOPS, optimiser_flops
from mt2st.training.trainer import TrainConfig, Trainer
from tests.helpers.tiny import mixture, streams, tiny_encoder


class Number:
    """A float that counts the operations it takes part in."""

    count = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def _with(self, other: Any, result: float) -> Number:
        Number.count += 1
        return Number(result)

    def __add__(self, other: Any) -> Number:
        return self._with(other, self.value + float(other))

    def __sub__(self, other: Any) -> Number:
        return self._with(other, self.value - float(other))

    def __mul__(self, other: Any) -> Number:
        return self._with(other, self.value * float(other))

    def __truediv__(self, other: Any) -> Number:
        return self._with(other, self.value / float(other))

    def __float__(self) -> float:
        return self.value

    def sqrt(self) -> Number:
        return self._with(None, math.sqrt(self.value))


def adamw_of_one_number(weight: float, gradient: float, *, decay: float, rate: float = 0.1) -> tuple[float, int]:
    """AdamW's first step on one number, term by term (arXiv 1711.05101), and the operations on numbers of its own."""
    Number.count = 0
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8
    p, g, m, v = Number(weight), Number(gradient), Number(0.0), Number(0.0)
    if decay:
        p = p * (1 - rate * decay)
    m = m + (g - m) * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    root = v.sqrt() / math.sqrt(1 - beta2) + epsilon
    p = p - m / root * (rate / (1 - beta1))
    return p.value, Number.count


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_formula_counts_the_operations_of_the_textbook_and_torch_does_that(decay: float) -> None:
    expected, operations = adamw_of_one_number(1.5, 0.25, decay=decay)
    assert operations == ADAMW_FLOPS + DECAY_FLOPS * bool(decay)
    weight = nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=decay)
    weight.grad = torch.tensor([0.25], dtype=torch.float64)
    optimizer.step()
    assert weight.item() == pytest.approx(expected, rel=1e-9)


def test_only_parameters_with_a_gradient_are_counted() -> None:
    weight, bias, idle = (nn.Parameter(torch.ones(*shape)) for shape in ((3, 4), (5,), (7, 7)))
    weight.grad, bias.grad = torch.ones(3, 4), torch.ones(5)
    groups = [{"params": [weight, idle], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    plain = 12 * (ADAMW_FLOPS + DECAY_FLOPS) + 5 * ADAMW_FLOPS
    assert optimiser_flops(groups, clipped=False) == plain
    assert optimiser_flops(groups, clipped=True) == plain + 17 * CLIP_FLOPS


def trainer(folder: Path | None = None, steps: int = 4, **more: Any) -> Trainer:
    encoder = tiny_encoder()
    tasks = mixture(encoder, masked_lm=Switch(at=0.5))
    config = TrainConfig(total_steps=steps, evaluate_every_steps=2, log_every_steps=1)
    sources = streams(encoder)
    batch = sources["captions"].batch(0)

    def validate() -> dict[str, float]:
        return {"similarity": float(encoder.features(batch).image_embedding.sum())}

    return Trainer(encoder, tasks, sources, config, folder=folder, validate=validate, **more)


def test_a_step_without_an_auxiliary_costs_the_optimiser_less() -> None:
    both = trainer()
    both.train_step(0)
    with_it = both.steps.optimiser_flops
    both.train_step(2)
    head = sum(parameter.numel() for parameter in both.mixture.tasks["masked_lm"].objective.parameters())
    each = ADAMW_FLOPS + CLIP_FLOPS
    assert with_it - (both.steps.optimiser_flops - with_it) >= head * each > 0, "the head has no gradient any more"


def test_validation_is_measured_once_counted_each_time_and_in_no_ledger() -> None:
    run = trainer()
    with FlopCounter() as counter, torch.inference_mode():
        run._bare.eval()
        assert run.validate is not None
        run.validate()
        run._bare.train()
    result = run.fit()
    assert result.validation_flops == 2 * counter.total > 0
    assert result.ledger.total == sum(row["steps"] * row["flops_per_step"] for row in result.ledger.by_kind())
    assert set(result.ledger.by_task()) == {"vqa", "masked_lm"}
    again = trainer()
    again._bare.eval()
    assert again.validate is not None
    with torch.inference_mode():
        uncounted = again.validate()
        with FlopCounter(fastpath=True):
            assert again.validate() == uncounted, "the bits of a validation that nobody counts"


def test_the_evaluation_fast_path_counts_what_the_slow_path_counts_and_keeps_its_bits() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True).eval()
    tokens = torch.randn(3, 5, 16)
    for run in (lambda: attention(tokens, tokens, tokens, need_weights=False)[0], lambda: layer(tokens)):
        with torch.inference_mode():
            plain = run()
            with FlopCounter() as slow:
                run()
            with FlopCounter(fastpath=True) as fast:
                counted = run()
        assert torch.equal(plain, counted)
        assert fast.total == slow.total > 0
    assert any("_native_multi_head" in name or "_encoder_layer_fwd" in name for name in fast.by_operation)


def test_a_resumed_run_has_counted_the_same(tmp_path: Path) -> None:
    whole = trainer().fit()

    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    stopped = trainer(tmp_path, on_step=lambda step: (stopped.save(), stop(step)))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    resumed = trainer(tmp_path).fit()
    assert resumed.optimiser_flops == whole.optimiser_flops > 0
    assert resumed.validation_flops == whole.validation_flops > 0
