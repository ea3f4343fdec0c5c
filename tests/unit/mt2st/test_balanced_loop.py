"""Balancers in the training loop: gradients, FLOPs by hand, tasks that switch off, resume to the bit, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mt2st.balancing import FAMO, PCD, PCGrad, UncertaintyWeighting, UPGrad
from mt2st.errors import Mt2stError
from mt2st.flops import FlopCounter
from mt2st.listening import Flattening
from mt2st.mixture import MT2ST
from mt2st.schedules import Constant, Schedule, Switch
from mt2st.training.balanced import Balancing
from mt2st.training.config import TrainConfig
from mt2st.training.stateful import states_of
from mt2st.training.trainer import Trainer
from tests.helpers.toy_models import Rows, regression

METHODS: dict[str, Callable[..., Any]] = {
    "UncertaintyWeighting": UncertaintyWeighting,
    "FAMO": FAMO,
    "UPGrad": UPGrad,
    "PCGrad": PCGrad,
    "PCD": PCD,
}
OF_TORCHJD = ("UPGrad", "PCGrad", "PCD")
# The toy's products on a batch of 4: hidden 4 → 8, a head 8 → 1. The input needs no gradient.
ROWS, HIDDEN, HEAD, SHARED = 4, 2 * 4 * 4 * 8, 2 * 4 * 8 * 1, 4 * 8 + 8


def made(name: str, mixture: MT2ST) -> Any:
    if name in OF_TORCHJD:
        pytest.importorskip("torchjd", reason="TorchJD is not installed (extra peers)")
    return METHODS[name](tuple(mixture.tasks))


def trainer(
    method: str | None,
    config: TrainConfig,
    schedules: Mapping[str, Schedule],
    *,
    dropout: float = 0.0,
    rows: Any = None,
    **options: Any,
) -> Trainer:
    encoder, mixture = regression(dropout=dropout, **schedules)
    balancer = made(method, mixture) if method else None
    return Trainer(encoder, mixture, {"primary": rows or Rows(ROWS)}, config, balancer=balancer, **options)


def weights(run: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_TORCHJD)
def test_the_gradients_are_those_of_torchjds_multi_task_backward(name: str) -> None:
    """Heads get their own task's gradient, the hidden layer the combination."""
    autojac = pytest.importorskip("torchjd.autojac", reason="TorchJD is not installed (extra peers)")
    aggregation = pytest.importorskip("torchjd.aggregation")
    encoder, mixture = regression(one=Constant(), two=Constant())
    for parameter in mixture.objectives["two"].parameters():
        parameter.data.mul_(-3)  # so that tasks conflict
    batch, scale = Rows(ROWS).batch(0), {"main": 1.0, "one": 2.0, "two": 0.5}
    losses = mixture(encoder.features, {"primary": batch}, scale)
    parameters = [*encoder.parameters(), *mixture.parameters()]
    Balancing(made(name, mixture), parameters).backward(losses, scale, seed=5)
    found = [parameter.grad for parameter in parameters]

    for parameter in parameters:
        parameter.grad = None
    hidden = encoder.features(batch)["hidden"]
    features = {"hidden": hidden, **batch}
    scaled = [scale[task] * mixture.tasks[task].objective(features) for task in scale]
    autojac.mtl_backward(scaled, features=hidden)
    theirs = {
        "UPGrad": aggregation.UPGrad(torch.ones(3)),
        "PCGrad": aggregation.PCGrad(),
        "PCD": aggregation.PCD(),
    }[name]
    torch.manual_seed(5)
    autojac.jac_to_grad(list(encoder.parameters()), theirs)
    for own, parameter in zip(found, parameters, strict=True):
        torch.testing.assert_close(own, parameter.grad)
    plain = torch.autograd.grad(
        torch.stack(list(mixture(encoder.features, {"primary": batch}, scale).values())).sum(), parameters
    )
    assert found[0] is not None
    assert not torch.allclose(found[0], plain[0]), "the tasks conflict"


def test_a_parameter_is_shared_by_the_tasks_that_reach_it_whatever_their_batches() -> None:
    """Each task has a batch of its own; the Jacobian's rows are their gradients of the hidden layer."""
    pytest.importorskip("torchjd", reason="TorchJD is not installed (extra peers)")
    encoder, mixture = regression(stream="auxiliary", one=Constant())
    batches = {"primary": Rows(ROWS).batch(0), "auxiliary": Rows(ROWS, seed=3).batch(0)}
    scale = {"main": 1.0, "one": 1.0}
    shared, parameters = list(encoder.parameters()), [*encoder.parameters(), *mixture.parameters()]
    rows = []
    for task in scale:
        loss = mixture(encoder.features, batches, {task: 1.0})[task]
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, shared)]))
    jacobian = torch.stack(rows)
    expected = UPGrad(tuple(scale)).combine(jacobian @ jacobian.T, tuple(scale), 0) @ jacobian
    balancing = Balancing(UPGrad(tuple(scale)), parameters)
    balancing.backward(mixture(encoder.features, batches, scale), scale, seed=0)
    torch.testing.assert_close(torch.cat([part.grad.flatten() for part in shared if part.grad is not None]), expected)
    assert set(balancing.shown) == set(scale)


def test_a_frozen_part_and_a_task_without_a_gradient_have_none() -> None:
    pytest.importorskip("torchjd", reason="TorchJD is not installed (extra peers)")
    encoder, mixture = regression(one=Constant())
    encoder.requires_grad_(False)
    mixture.objectives["one"].requires_grad_(False)
    scale = {"main": 1.0, "one": 1.0}
    balancing = Balancing(UPGrad(tuple(scale)), [*encoder.parameters(), *mixture.parameters()])
    balancing.backward(mixture(encoder.features, {"primary": Rows().batch(0)}, scale), scale, seed=0)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(parameter.grad is not None for parameter in mixture.objectives["main"].parameters())
    mixture.requires_grad_(False)
    with pytest.raises(Mt2stError, match="no active task has a parameter to train"):
        balancing.backward(mixture(encoder.features, {"primary": Rows().batch(0)}, scale), scale, seed=0)


def test_a_loss_that_is_not_finite_is_named_by_the_loop() -> None:
    class Broken(Rows):
        def batch(self, index: int, rank: int = 0, world: int = 1) -> Any:
            batch = super().batch(index, rank, world)
            return {**batch, "y": batch["y"] * float("nan")} if index == 2 else batch

    run = trainer("UPGrad", TrainConfig(4, log_every_steps=4), {"one": Constant()}, rows=Broken())
    with pytest.raises(Mt2stError, match="the loss of task 'main' is nan at step 2"):
        run.fit()


# -- FLOPs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("auxiliaries", [1, 2])
def test_the_extra_passes_are_in_the_ledger_as_a_count_by_hand_has_them(name: str, auxiliaries: int) -> None:
    tasks = 1 + auxiliaries
    run = trainer(name, TrainConfig(3), {f"aux{place}": Constant() for place in range(auxiliaries)})
    result = run.fit()
    forward, heads_backward = HIDDEN + tasks * HEAD, tasks * 2 * HEAD
    gramian = 2 * tasks * tasks * SHARED + 2 * tasks * SHARED
    by_hand = {
        "UncertaintyWeighting": forward + heads_backward + HIDDEN,
        "FAMO": 2 * forward + heads_backward + HIDDEN,
    }.get(name, forward + heads_backward + tasks * HIDDEN + gramian)
    assert result.ledger.total == 3 * by_hand


def test_counting_a_balanced_step_changes_no_bit() -> None:
    for name in METHODS:
        runs = [trainer(name, TrainConfig(3), {"one": Constant()}, dropout=0.3) for _ in range(2)]
        runs[0].fit()
        with FlopCounter():
            runs[1].fit()
        assert equal(weights(runs[0]), weights(runs[1])), name


# -- tasks that switch off ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_with_one_active_task_a_step_is_a_plain_one(name: str) -> None:
    """From the switch on the kind, the cost and the gradient are those of the primary task alone."""
    config = TrainConfig(6, log_every_steps=1)
    run = trainer(name, config, {"one": Switch(0.5), "two": Switch(0.3)})
    alone = trainer(None, config, {"one": Switch(0.0), "two": Switch(0.0)})
    for step in range(3):
        run.train_step(step)
    for own, parameter in zip(alone.parameters(), run.parameters(), strict=True):
        own.data.copy_(parameter.data)
    alone._optimizer.optimizer.load_state_dict(deepcopy(run._optimizer.optimizer.state_dict()))
    run.train_step(3)
    alone.train_step(3)
    assert equal(weights(run), weights(alone))
    costs = {row["kind"].split("|")[0]: row["flops_per_step"] for row in run.ledger.by_kind()}
    assert set(costs) == {"main", "main+one", "main+one+two"}
    assert costs["main"] == alone.ledger.by_kind()[0]["flops_per_step"] == 2 * HIDDEN + 3 * HEAD


def test_what_it_weighs_is_logged_while_it_does() -> None:
    lines: list[Mapping[str, Any]] = []
    trainer("FAMO", TrainConfig(4, log_every_steps=1), {"one": Switch(0.5)}, log=lines.append).fit()
    shown = [{key: value for key, value in line.items() if key.startswith("balance/")} for line in lines]
    assert [set(each) for each in shown] == [{"balance/main", "balance/one"}] * 2 + [set()] * 2
    assert sum(shown[1].values()) == pytest.approx(1.0)


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("step", [3, 5, 7])  # with three tasks, with two, with one
def test_stopped_it_resumes_to_the_bits_of_an_uninterrupted_run(name: str, step: int, tmp_path: Path) -> None:
    schedules = {"one": Switch(0.75), "two": Switch(0.5)}
    config = TrainConfig(8, learning_rate=0.02, checkpoint_every_steps=1, log_every_steps=2)

    class StoppedError(Exception):
        pass

    def stop(at: int) -> None:
        if at == step + 1:
            raise StoppedError

    whole = trainer(name, config, schedules, dropout=0.3)
    whole.fit()
    with pytest.raises(StoppedError):
        trainer(name, config, schedules, dropout=0.3, folder=tmp_path, on_step=stop).fit()
    torch.rand(7)
    run = trainer(name, config, schedules, dropout=0.3, folder=tmp_path)
    assert run.resume() == step
    run.fit()
    assert equal(weights(run), weights(whole))
    assert run.ledger.state_dict() == whole.ledger.state_dict()
    states = [states_of(each._parts) for each in (run, whole)]
    assert states[0] == states[1]
    assert name in ("UPGrad", "PCGrad") or states[0]["balancer"], "it remembers something"


def test_a_checkpoint_of_another_method_or_knob_is_refused(tmp_path: Path) -> None:
    config = TrainConfig(2, checkpoint_every_steps=1)
    trainer("FAMO", config, {"one": Constant()}, folder=tmp_path).fit()
    encoder, mixture = regression(one=Constant())
    tasks = tuple(mixture.tasks)
    for other in (FAMO(tasks, learning_rate=0.1), UncertaintyWeighting(tasks), None):
        run = Trainer(encoder, mixture, {"primary": Rows()}, config, folder=tmp_path, balancer=other)
        with pytest.raises(Mt2stError, match="was written under another configuration"):
            run.resume()


# -- what is drawn, precision, refusals --------------------------------------------------------------------------------


def test_what_pcgrad_draws_follows_from_the_seed() -> None:
    found = []
    for seed in (0, 0, 1):
        torch.rand(seed + 3)  # whatever was drawn before
        run = trainer("PCGrad", TrainConfig(6, seed=seed), {"one": Constant(), "two": Constant(), "three": Constant()})
        for parameter in run.mixture.objectives["two"].parameters():
            parameter.data.mul_(-3)
        run.fit()
        found.append(weights(run))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


@pytest.mark.parametrize("name", METHODS)
def test_bf16_trains(name: str) -> None:
    run = trainer(name, TrainConfig(3, precision="bf16"), {"one": Constant()})
    before = weights(run)
    run.fit()
    assert all(torch.isfinite(weight).all() for weight in weights(run))
    assert not equal(before, weights(run))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("FAMO", {"accumulation": 2}, "FAMO takes one batch a step; use accumulation = 1, not 2"),
        ("UPGrad", {"accumulation": 2}, "UPGrad takes one batch a step"),
        ("FAMO", {"total_flops": 10**9}, "FAMO needs a fixed number of steps and schedules that do not listen"),
        ("PCGrad", {"precision": "fp16"}, "PCGrad compares gradients, which fp16 scales and overflows; use precision"),
        ("PCD", {"compile": True}, "PCD runs several backward passes, which a compiled model cannot; use compile = F"),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_line(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        trainer(name, TrainConfig(0 if "total_flops" in changes else 4, **changes), {"one": Constant()})


def test_schedules_that_listen_are_refused_too() -> None:
    with pytest.raises(
        Mt2stError, match="UncertaintyWeighting needs a fixed number of steps and schedules that do not"
    ):
        trainer("UncertaintyWeighting", TrainConfig(4), {"one": Flattening()})
