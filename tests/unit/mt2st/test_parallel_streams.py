"""Parallel streams: the numbers of one stream after the other, the same bits every time, and where they stay apart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.batch import Batch
from mt2st.errors import Mt2stError
from mt2st.mixture import MT2ST, Task
from mt2st.schedules import Constant, Switch
from mt2st.training.config import TrainConfig
from mt2st.training.joint_model import JointModel
from mt2st.training.parallel_streams import ParallelStreams
from mt2st.training.trainer import Trainer
from tests.helpers.toy_models import Regression, Rows


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Normalised(nn.Module):
    """A hidden layer with batch normalisation, and what a test hangs on to it."""

    def __init__(self, also: Callable[[Normalised, Tensor], Tensor] = lambda encoder, hidden: hidden) -> None:
        super().__init__()
        # no bias before the normalisation: its gradient is rounding, and Adam makes whole steps of that
        self.first, self.norm, self.last = nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.register_buffer("seen", torch.zeros(()))
        self.also = also

    def features(self, batch: Batch) -> Any:
        hidden = self.also(self, self.last(torch.tanh(self.norm(self.first(batch["x"])))))
        return {"hidden": hidden, **batch}


class Dropped(Regression):
    def forward(self, features: Any) -> Tensor:
        hidden = functional.dropout(features["hidden"], 0.5)
        return functional.mse_loss(self.head(hidden), features["y"])


def setting(
    encoder: Normalised | None = None, kinds: tuple[type[Regression], ...] = (Regression, Regression, Regression)
) -> tuple[JointModel, dict[str, Batch], dict[str, float]]:
    """A model with a primary task, two auxiliaries on one stream and one on another; batches; weights."""
    torch.manual_seed(0)
    encoder = encoder or Normalised()
    main, second, third = kinds
    tasks = [
        Task(second("second"), Constant(), stream="b"),
        Task(Regression("both"), Constant(), stream="b"),
        Task(third("third"), Constant(), stream="c"),
    ]
    model = JointModel(encoder, MT2ST(Task(main("main"), Constant(), stream="a"), tasks)).train()
    batches = {name: Rows(5, seed).batch(0) for seed, name in enumerate("abc")}
    return model, batches, {"main": 1.0, "second": 0.5, "both": 2.0, "third": 0.25}


def one_after_the_other(
    model: JointModel, batches: dict[str, Batch], weights: dict[str, float], scale: float
) -> dict[str, Tensor]:
    losses = model.forward(batches, weights)
    (scale * torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()).backward()
    return losses


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_gradients_losses_and_running_statistics_are_those_of_one_stream_after_the_other() -> None:
    (serial, batches, weights), (parallel, _, _) = setting(), setting()
    streams = ParallelStreams(parallel)
    for scale in (1.0, 0.5):  # the second time on top of the gradients that are there
        expected = one_after_the_other(serial, batches, weights, scale)
        assert streams.serves(batches, weights)
        found = streams.gradients(batches, weights, scale)
        assert list(found) == list(weights)
        for name in weights:
            assert not found[name].requires_grad
            torch.testing.assert_close(found[name], expected[name].detach())
    for own, theirs in zip(gradients(parallel), gradients(serial), strict=True):
        torch.testing.assert_close(own, theirs)
    for own, theirs in zip(parallel.buffers(), serial.buffers(), strict=True):
        torch.testing.assert_close(own, theirs)
    assert parallel.encoder.norm.num_batches_tracked == 6
    assert torch.get_num_threads() == 2


def test_the_same_bits_every_time() -> None:
    def once() -> list[Tensor]:
        model, batches, weights = setting()
        ParallelStreams(model).gradients(batches, weights, 1.0)
        return [*gradients(model), *model.buffers()]

    first = once()
    for _ in range(20):
        assert all(torch.equal(own, theirs) for own, theirs in zip(once(), first, strict=True))


def test_looking_at_a_set_of_tasks_changes_nothing() -> None:
    model, batches, weights = setting(kinds=(Regression, Dropped, Regression))
    before = [tensor.clone() for tensor in model.state_dict().values()]
    random = torch.default_generator.get_state()
    assert ParallelStreams(model).serves(batches, weights)
    assert torch.equal(torch.default_generator.get_state(), random)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before, strict=True))


def test_random_numbers_in_one_stream_stay_what_they_were_and_two_drawing_streams_are_not_parallel() -> None:
    kinds = (Regression, Dropped, Regression)
    (serial, batches, weights), (parallel, _, _) = setting(kinds=kinds), setting(kinds=kinds)
    streams = ParallelStreams(parallel)
    assert streams.serves(batches, weights)
    torch.manual_seed(7)
    expected = one_after_the_other(serial, batches, weights, 1.0)
    torch.manual_seed(7)
    found = streams.gradients(batches, weights, 1.0)
    for name in weights:
        torch.testing.assert_close(found[name], expected[name].detach())
    two, batches, weights = setting(kinds=(Dropped, Dropped, Regression))
    assert not ParallelStreams(two).serves(batches, weights)
    without = {name: weight for name, weight in weights.items() if name != "second"}
    assert ParallelStreams(two).serves(batches, without)


def test_an_encoder_that_changes_a_buffer_is_served_one_after_the_other() -> None:
    def counting(encoder: Normalised, hidden: Tensor) -> Tensor:
        encoder.seen += 1
        return hidden

    model, batches, weights = setting(Normalised(counting))
    assert not ParallelStreams(model).serves(batches, weights)
    assert model.encoder.seen == 0


def test_what_drops_out_when_it_is_not_frozen_is_looked_at_anew() -> None:
    def dropping(encoder: Normalised, hidden: Tensor) -> Tensor:
        return functional.dropout(hidden, 0.5, training=encoder.last.training)

    model, batches, weights = setting(Normalised(dropping))
    streams = ParallelStreams(model)
    model.encoder.last.eval()
    assert streams.serves(batches, weights, ("text@until=0.5",))
    model.encoder.last.train()
    assert not streams.serves(batches, weights)


def test_activations_that_are_computed_again_keep_streams_apart() -> None:
    model, batches, weights = setting()
    model.encoder.grad_checkpointing = True  # as open_clip's transformers have it
    assert not ParallelStreams(model).serves(batches, weights)


@pytest.mark.parametrize(
    "config",
    [{"parallel_streams": False}, {"precision": "bf16"}, {"patch_dropout": 0.5}, {"low_resolution_until": 0.5}],
)
def test_trainings_that_cannot_have_them(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt2st.training.trainer.economise", lambda streams, *_: streams)
    assert trained(None, 2)[0].steps._parallel is not None
    assert trained(None, 2, **config)[0].steps._parallel is None


def test_one_stream_or_one_thread_is_not_parallel() -> None:
    model, batches, weights = setting()
    streams = ParallelStreams(model)
    assert not streams.serves({"a": batches["a"]}, {"main": 1.0})
    torch.set_num_threads(1)
    assert not streams.serves(batches, weights)


def test_an_error_in_any_stream_is_the_callers_and_threads_stay_what_they_were() -> None:
    for wrong in "ac":
        model, batches, weights = setting()
        streams = ParallelStreams(model)
        assert streams.serves(batches, weights)
        batches[wrong] = {**batches[wrong], "x": torch.zeros(5, 3)}
        with pytest.raises(RuntimeError, match="shapes"):
            streams.gradients(batches, weights, 1.0)
        assert torch.get_num_threads() == 2
        assert not gradients(model)
        model.eval()
        model.train()
        model.encoder.norm(torch.randn(3, 8))  # this thread's normalisation moves its own statistics again
        assert model.encoder.norm.num_batches_tracked == 1


def test_a_stream_that_trains_nothing_adds_nothing_and_if_none_does_it_is_an_error() -> None:
    model, batches, weights = setting()
    streams = ParallelStreams(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(Mt2stError, match="frozen"):
        streams.gradients(batches, weights, 1.0)
    main = model.mixture.tasks["main"].objective.head
    main.requires_grad_()
    streams.gradients(batches, weights, 1.0)
    assert len(gradients(model)) == len(list(main.parameters()))


def test_every_gradient_has_memory_of_its_own() -> None:
    """Two parameters that are added have one gradient, and that of a sum is an expanded one."""

    class Added(Normalised):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Parameter(torch.zeros(5, 8)), nn.Parameter(torch.zeros(5, 8))

        def features(self, batch: Batch) -> Any:
            features = super().features(batch)
            return {**features, "hidden": features["hidden"] + (self.one + self.other)}

    class Summed(Regression):
        def forward(self, features: Any) -> Tensor:
            return super().forward(features) + self.head.weight.sum()

    kinds = (Summed, Regression, Summed)
    first = Added()
    (serial, batches, weights), (parallel, _, _) = setting(first, kinds), setting(copy.deepcopy(first), kinds)
    one_after_the_other(serial, batches, weights, 1.0)
    ParallelStreams(parallel).gradients(batches, weights, 1.0)
    for model in (serial, parallel):
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    for own, theirs in zip(gradients(parallel), gradients(serial), strict=True):
        torch.testing.assert_close(own, theirs)
    places = [parameter.grad.data_ptr() for parameter in parallel.parameters() if parameter.grad is not None]
    assert len(set(places)) == len(places)


def test_the_model_stays_what_it_looks_like_and_can_be_copied() -> None:
    model, batches, weights = setting()
    printed, names = repr(model), list(model.state_dict())
    streams = ParallelStreams(model)
    assert repr(model) == printed
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    streams.gradients(batches, weights, 1.0)
    assert copied.encoder.norm.num_batches_tracked == 0
    again = ParallelStreams(copied)  # a second training of a model that has had one
    again.gradients(batches, weights, 1.0)
    assert copied.encoder.norm.num_batches_tracked == 3
    assert repr(copied) == printed


def trained(folder: Path | None, steps: int, until: int = 0, **config: Any) -> tuple[Trainer, dict[str, Tensor]]:
    torch.manual_seed(0)
    encoder = Normalised()
    tasks = [
        Task(Regression("second"), Switch(0.5), stream="b"),
        Task(Dropped("third"), Constant(0.5), stream="b"),
    ]
    mixture = MT2ST(Task(Regression("main"), Constant(), stream="a"), tasks)
    streams = {name: Rows(5, seed) for seed, name in enumerate("ab")}

    def stop(step: int) -> None:
        if step == until:
            raise KeyboardInterrupt

    trainer = Trainer(
        encoder,
        mixture,
        streams,
        TrainConfig(total_steps=steps, checkpoint_every_steps=3, **{"parallel_streams": True, **config}),
        folder=folder,
        on_step=stop,
    )
    return trainer, {name: value.clone() for name, value in trainer._bare.state_dict().items()}


def test_a_whole_training_comes_near_the_serial_one_costs_the_same_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole, start = trained(None, 12)
    serial, _ = trained(None, 12, parallel_streams=False)
    flops = [trainer.fit().ledger.total for trainer in (whole, serial)]
    assert flops[0] == flops[1]
    near = zip(whole._bare.state_dict().items(), serial._bare.state_dict().values(), strict=True)
    for (name, own), theirs in near:
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5, msg=name)
    assert any(not torch.equal(start[name], value) for name, value in whole._bare.state_dict().items())
    broken, _ = trained(tmp_path, 12, until=8)
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    resumed, _ = trained(tmp_path, 12)
    resumed.fit()
    for name, value in resumed._bare.state_dict().items():
        assert torch.equal(value, whole._bare.state_dict()[name]), name
