"""Methods that weigh tasks: the numbers of TorchJD's own objects, tasks that drop out, state, errors."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mt2st.balancing import FAMO, PCD, Balancer, GradientBalancer, PCGrad, UncertaintyWeighting, UPGrad
from mt2st.errors import Mt2stError
from mt2st.training.stateful import load_states, states_of

TASKS = ("main", "one", "two")
NEEDS_TORCHJD = "TorchJD is not installed (extra peers)"
METHODS: dict[str, Callable[[Sequence[str]], Balancer]] = {
    "UncertaintyWeighting": UncertaintyWeighting,
    "FAMO": FAMO,
    "UPGrad": UPGrad,
    "PCGrad": PCGrad,
    "PCD": PCD,
}
OF_TORCHJD = ("UPGrad", "PCGrad", "PCD")


def made(name: str, tasks: Sequence[str] = TASKS) -> Balancer:
    if name in OF_TORCHJD:
        pytest.importorskip("torchjd", reason=NEEDS_TORCHJD)
    return METHODS[name](tasks)


class Toy:
    """Three positive losses of one linear layer, and plain gradient descent on it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer, self.x = nn.Linear(4, 3), torch.randn(6, 4)

    def losses(self) -> Tensor:
        return self.layer(self.x).square().mean(0) * torch.tensor([1.0, 5.0, 0.2])

    def named(self, names: Sequence[str] = TASKS) -> dict[str, Tensor]:
        return {name: loss for name, loss in zip(TASKS, self.losses(), strict=True) if name in names}

    def descend(self, total: Tensor) -> None:
        self.layer.zero_grad()
        total.backward()
        with torch.no_grad():
            for parameter in self.layer.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad


def ours(balancer: Any, steps: int, names: Callable[[int], Sequence[str]] = lambda step: TASKS) -> Toy:
    """A toy trained under one of our methods."""
    toy = Toy()
    for step in range(steps):
        losses = toy.named(names(step))
        detached = {name: loss.detach() for name, loss in losses.items()}
        factors = balancer.factors(detached)
        toy.descend(sum((factors[name] * loss for name, loss in losses.items()), start=torch.zeros(())))
        after = {name: loss.detach() for name, loss in toy.named(names(step)).items()} if balancer.looks_again else None
        balancer.learn(detached, after, 0.05)
    return toy


def test_uncertainty_weighting_is_torchjds() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization", reason=NEEDS_TORCHJD)
    theirs, toy = scalarization.UW(3), Toy()
    adam = torch.optim.Adam(theirs.parameters(), lr=0.05)
    for _ in range(8):
        adam.zero_grad()
        toy.descend(theirs(toy.losses()))
        adam.step()
    own = UncertaintyWeighting(TASKS)
    torch.testing.assert_close(ours(own, 8).layer.weight, toy.layer.weight)
    values = torch.stack([own.state_dict()[name]["value"] for name in TASKS])
    torch.testing.assert_close(values, theirs.log_var.detach())
    assert values.abs().min() > 0.1


def test_famo_is_torchjds() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization", reason=NEEDS_TORCHJD)
    theirs, toy = scalarization.FAMO(3), Toy()
    for _ in range(8):
        toy.descend(theirs(toy.losses()))
        theirs.update(toy.losses().detach())
    own = FAMO(TASKS)
    torch.testing.assert_close(ours(own, 8).layer.weight, toy.layer.weight)
    values = torch.stack([own.state_dict()[name]["value"] for name in TASKS])
    torch.testing.assert_close(values, theirs.state_dict()["_w"])
    assert values.abs().min() > 0.05


def test_famos_gradient_is_a_convex_combination() -> None:
    losses = {name: torch.tensor(value) for name, value in zip(TASKS, (2.0, 0.5, 0.01), strict=True)}
    factors = FAMO(TASKS).factors(losses)
    assert float(sum(factors.values())) == pytest.approx(1.0)
    assert float(factors["two"]) > float(factors["one"]) > float(factors["main"]) > 0


@pytest.mark.parametrize("method", [UncertaintyWeighting, FAMO])
def test_the_number_of_a_task_that_dropped_out_rests(method: Any) -> None:
    balancer = method(TASKS)
    ours(balancer, 5)
    before = balancer.state_dict()
    ours(balancer, 3, lambda step: ("main", "two"))
    after = balancer.state_dict()
    assert all(torch.equal(before["one"][part], after["one"][part]) for part in before["one"])
    assert not torch.equal(before["two"]["value"], after["two"]["value"])
    assert (float(after["one"]["step"]), float(after["two"]["step"])) == (5.0, 8.0)


# -- gradients ---------------------------------------------------------------------------------------------------------


def conflicting(rows: int = 3, seed: int = 0) -> Tensor:
    """A Jacobian [rows, 5] in which gradients conflict."""
    jacobian = torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed))
    jacobian[1] = -0.7 * jacobian[0] + 0.5 * jacobian[1]
    assert (jacobian @ jacobian.T).min() < 0
    return jacobian


def combined(balancer: Any, jacobian: Tensor, seed: int = 0, tasks: Sequence[str] = TASKS) -> Tensor:
    weights: Tensor = balancer.combine(jacobian @ jacobian.T, tasks[: len(jacobian)], seed)
    return weights @ jacobian


def test_upgrad_is_torchjds_and_harms_no_task() -> None:
    aggregation = pytest.importorskip("torchjd.aggregation", reason=NEEDS_TORCHJD)
    jacobian = conflicting()
    gradient = combined(made("UPGrad"), jacobian)
    torch.testing.assert_close(gradient, 3 * aggregation.UPGrad()(jacobian))
    assert (jacobian @ gradient).min() > -1e-3
    assert (jacobian @ jacobian.sum(0)).min() < -0.1, "the plain sum does harm one"


def test_without_conflicts_upgrad_and_pcgrad_are_multi_task_training() -> None:
    jacobian = conflicting().abs()
    for name in ("UPGrad", "PCGrad"):
        torch.testing.assert_close(combined(made(name), jacobian), jacobian.sum(0))


def test_pcgrad_is_torchjds_in_the_order_that_the_seed_draws() -> None:
    aggregation = pytest.importorskip("torchjd.aggregation", reason=NEEDS_TORCHJD)
    jacobian, found = conflicting(4, seed=3), []
    jacobian[3] = -jacobian[1] + 0.3 * jacobian[2]
    tasks = (*TASKS, "three")
    for seed in range(6):
        torch.manual_seed(seed)
        expected = aggregation.PCGrad()(jacobian)
        torch.manual_seed(99)
        state = torch.get_rng_state()
        found.append(combined(made("PCGrad", tasks), jacobian, seed, tasks))
        assert torch.equal(torch.get_rng_state(), state), "the generator is left as it was"
        torch.testing.assert_close(found[-1], expected)
    assert len({tuple(gradient.tolist()) for gradient in found}) > 1


def test_pcd_is_torchjds_over_steps_and_begins_anew_with_other_tasks() -> None:
    aggregation = pytest.importorskip("torchjd.aggregation", reason=NEEDS_TORCHJD)
    own, theirs = made("PCD"), aggregation.PCD()
    for seed in range(4):
        torch.testing.assert_close(combined(own, conflicting(seed=seed)), theirs(conflicting(seed=seed)))
    pair = conflicting(2, seed=9)
    expected = aggregation.PCD()(pair)
    torch.testing.assert_close(combined(own, pair, tasks=("main", "two")), expected)
    assert torch.linalg.norm(expected) == pytest.approx(torch.linalg.norm(pair[0]))


# -- state and errors --------------------------------------------------------------------------------------------------


def used(balancer: Any, steps: int) -> list[Tensor]:
    """What a method answers over some steps."""
    answers = []
    for step in range(steps):
        if isinstance(balancer, GradientBalancer):
            answers.append(combined(balancer, conflicting(seed=step), seed=step))
            continue
        losses = {name: torch.tensor(1.0 + step + place) for place, name in enumerate(TASKS)}
        answers.append(torch.stack(list(balancer.factors(losses).values())))
        balancer.learn(losses, {name: 0.9 * loss for name, loss in losses.items()}, 0.01)
    return answers


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_its_state_goes_through_a_checkpoint_to_the_bit(name: str, steps: int) -> None:
    first, second = made(name), made(name)
    used(first, steps)
    load_states({"it": second}, json.loads(json.dumps(states_of({"it": first}))))
    assert all(torch.equal(one, other) for one, other in zip(used(first, 3), used(second, 3), strict=True))


def test_a_loss_without_a_logarithm_is_named() -> None:
    with pytest.raises(Mt2stError, match=r"FAMO takes the logarithm of losses, and that of task 'one' is -0.5"):
        FAMO(TASKS).factors({"main": torch.tensor(1.0), "one": torch.tensor(-0.5)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FAMO(TASKS, learning_rate=-1.0), "learning_rate"),
        (lambda: FAMO(TASKS, weight_decay=-1.0), "weight_decay"),
        (lambda: PCD(TASKS, tau=1.5), "tau"),
        (lambda: PCD(TASKS, beta=1.0), "beta"),
    ],
)
def test_knobs_are_checked(make: Callable[[], Any], message: str) -> None:
    pytest.importorskip("torchjd", reason=NEEDS_TORCHJD)
    with pytest.raises(Mt2stError, match=message):
        make()


@pytest.mark.parametrize(("method", "package"), [(UPGrad, "quadprog"), (PCGrad, "torchjd"), (PCD, "torchjd")])
def test_without_the_package_the_cure_is_named(method: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("qpsolvers"):  # it looks once, when it is first imported, which solvers there are
        importlib.import_module("qpsolvers")
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Mt2stError) as error:
        method(TASKS)
    assert str(error.value).startswith(f"{method.__name__} needs packages that are not installed (")
    assert str(error.value).endswith("); pip install 'mt2st[peers]'")
    assert "\n" not in str(error.value)
