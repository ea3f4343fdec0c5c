"""Schedules that listen: when they stop, what they hear, what it costs, and that a resumed run hears the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mt2st.errors import Mt2stError
from mt2st.listening import Aligned, Flattening, Forked, flattened
from mt2st.mixture import MT2ST, Task
from mt2st.randomness import step_seed
from mt2st.schedules import Constant, Listens, Sampled, Schedule, Switch, describe, listens, stays_constant
from mt2st.training.config import TrainConfig, learning_rate_of
from mt2st.training.trainer import Trainer, TrainResult
from tests.helpers.toy_models import LinearEncoder, Regression, Rows, regression

STEPS = 12
LISTENERS: dict[str, Callable[[], Any]] = {
    "own_loss": lambda: Flattening(every=0.1, batches=2, patience=2, threshold=0.9),
    "benefit": lambda: Forked(every=0.2, fork=0.2, batches=1, margin=10.0),
    "cosine": lambda: Aligned(every=0.2, batches=3, patience=2, threshold=1.0),
}


class Killed(BaseException):
    """Stands for a lost machine."""


def build(folder: Path | None = None, *, budget: int = 0, kill_at: int = 0, **auxiliaries: Schedule) -> Trainer:
    """12 steps, or a budget, with dropout, checkpointed at every step."""
    encoder, tasks = regression(dropout=0.2, **auxiliaries)

    def on_step(step: int) -> None:
        if step == kill_at:
            raise Killed

    return Trainer(
        encoder,
        tasks,
        {"primary": Rows(8, size=24)},
        TrainConfig(0 if budget else STEPS, total_flops=budget, learning_rate=0.05, checkpoint_every_steps=1),
        folder=folder,
        validate=lambda: {"one": 1.0},
        validation_streams=lambda: {"primary": Rows(6, seed=1, size=20)},
        on_step=on_step,
    )


def facts(run: Trainer, result: TrainResult) -> tuple[dict[str, Tensor], Any]:
    """Weights, and all else that may not differ."""
    rest = result.ledger.state_dict(), result.listening, result.steps, result.curve[-1]["flops"]
    return {name: value.clone() for name, value in run._bare.state_dict().items()}, rest


def assert_same(left: tuple[Mapping[str, Tensor], Any], right: tuple[Mapping[str, Tensor], Any]) -> None:
    assert left[1] == right[1]
    for name, value in left[0].items():
        assert torch.equal(value, right[0][name]), name


# -- schedules -------------------------------------------------------------------------------------------------------


def test_a_loss_has_flattened_when_the_window_brings_too_little() -> None:
    falling = [1.0, 0.8, 0.64, 0.512, 0.41]  # the last two bring 0.23 of the 0.59 that were gained
    assert not any(flattened(falling[:count], 2, 0.1) for count in range(len(falling) + 1))
    assert flattened([*falling, 0.4, 0.395], 2, 0.1)  # 0.015 of 0.605
    assert not flattened([*falling, 0.9, 0.3], 2, 0.1)  # one bad value in the window changes nothing
    assert flattened([1.0, 1.0], 1, 0.0)
    assert flattened([1.0, 1.01], 1, 0.0)
    assert not flattened([1.0, 0.99], 1, 0.0)
    for scale, floor in ((10.0, 0.0), (0.1, -3.0)):  # neither scale nor floor matters
        moved = [scale * loss + floor for loss in (*falling, 0.4, 0.36)]
        assert not flattened(moved, 2, 0.075)
        assert flattened(moved, 2, 0.08)


def test_a_listener_keeps_its_weight_until_it_hears_enough_and_then_stops_for_good() -> None:
    fade = Aligned(initial=0.5, patience=2, threshold=0.1)
    weights = []
    for cosine in (0.4, -0.1, -0.3, 0.9, 0.9):
        fade.hear(cosine)
        weights.append(fade(0.3))
    assert weights == [0.5, 0.5, 0.0, 0.0, 0.0]
    assert fade.stopped
    forks = Forked(margin=0.01, patience=1)
    forks.hear(0.02)
    assert not forks.stopped
    forks.hear(0.01)
    assert forks(1.0) == 0.0


@pytest.mark.parametrize("kind", LISTENERS)
def test_state_is_plain_and_settings_are_the_description(kind: str) -> None:
    first, second = LISTENERS[kind](), LISTENERS[kind]()
    before = describe(first)
    for value in (0.5, 0.5, 0.5):
        first.hear(value)
    assert describe(first) == before == describe(second)
    assert repr(first) == repr(second)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict() == {"heard": [0.5] * 3, "stopped": first.stopped}
    assert isinstance(first, Listens)
    assert isinstance(first, Schedule)
    assert listens(first)
    assert not listens(Switch(0.4))
    assert not stays_constant(LISTENERS[kind]())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Flattening(initial=0.0), "initial = 0.0"),
        (lambda: Flattening(every=0.0), "every = 0.0"),
        (lambda: Flattening(batches=0), "batches = 0"),
        (lambda: Flattening(patience=0), "patience = 0"),
        (lambda: Flattening(threshold=2.0), "threshold = 2.0"),
        (lambda: Forked(every=0.1, fork=0.2), "fork = 0.2"),
        (lambda: Forked(margin=math.nan), "margin = nan"),
        (lambda: Aligned(threshold=-1.5), "threshold = -1.5"),
        (lambda: Aligned().hear(math.nan), "heard nan"),
        (lambda: Aligned()(1.5), "progress"),
        (lambda: Sampled(Aligned()), "cannot be sampled"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(Mt2stError, match=words):
        make()


# -- in a training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LISTENERS)
@pytest.mark.parametrize("budgeted", [False, True])
def test_resumed_anywhere_it_hears_what_an_uninterrupted_run_hears(kind: str, budgeted: bool, tmp_path: Path) -> None:
    """Killed once before, in, or after each listening window, on both sides of the stop."""
    budget = 16 * step_cost("main", "aux") if budgeted else 0
    whole = build(budget=budget, aux=LISTENERS[kind]())
    expected = facts(whole, whole.fit())
    stops = [row["step"] for row in expected[1][1] if row["stopped"]]
    assert stops, "it must stop within the run, or the test shows too little"
    assert expected[1][2] > stops[0] + 1
    for at in range(1, expected[1][2], 1 if kind == "benefit" else 2):
        folder = tmp_path / str(at)
        with pytest.raises(Killed):
            build(folder, budget=budget, kill_at=at, aux=LISTENERS[kind]()).fit()
        run = build(folder, budget=budget, aux=LISTENERS[kind]())
        assert_same(facts(run, run.fit()), expected)


def step_cost(*tasks: str, rows: int = 8) -> int:
    """FLOPs of a step by hand: 4 → 8 (its input needs no gradient), and a head 8 → 1 a task."""
    return 2 * rows * 4 * 8 * 2 + len(tasks) * 3 * 2 * rows * 8


@pytest.mark.parametrize("kind", LISTENERS)
def test_what_listening_costs_has_a_row_of_its_own(kind: str) -> None:
    result = build(aux=LISTENERS[kind]()).fit()
    encoder, head = 2 * 6 * 4 * 8, 2 * 6 * 8  # forward, of a validation batch of 6 rows
    heard = len(result.listening)
    stop = result.listening[-1]["step"]
    if kind == "own_loss":
        expected = {"forward": heard * 2 * (encoder + head), "backward": 0}
    elif kind == "cosine":  # each head's input and the encoder get a gradient a task; the heads' own are not asked for
        expected = {"forward": heard * 3 * (encoder + 2 * head), "backward": heard * 3 * 2 * (encoder + head)}
    else:
        forked = heard * round(0.2 * STEPS)
        expected = {
            "forward": forked * (2 * 8 * 4 * 8 + 2 * 8 * 8) + heard * 2 * (encoder + head),
            "backward": forked * (2 * 8 * 4 * 8 + 2 * 2 * 8 * 8),
        }
    assert result.ledger.by_task()["listening"] == expected
    training = stop * step_cost("main", "aux") + (STEPS - stop) * step_cost("main")
    assert result.ledger.total == training + sum(expected.values()) == result.curve[-1]["flops"]
    assert result.listening[-1]["stopped"]
    assert not any(row["stopped"] for row in result.listening[:-1])


@pytest.mark.parametrize(
    "never", [Forked(every=0.25, fork=0.2, margin=-10.0), Aligned(threshold=-1.0), Flattening(threshold=-1.0)]
)
def test_listening_alone_changes_no_bit_of_what_is_learned(never: Any) -> None:
    listening, plain = build(aux=never), build(aux=Constant())
    heard, result = listening.fit(), plain.fit()
    assert len(heard.listening) >= 2
    assert heard.ledger.total > result.ledger.total
    assert_same((facts(listening, heard)[0], 0), (facts(plain, result)[0], 0))
    moments = [run._optimizer.optimizer.state_dict()["state"] for run in (listening, plain)]
    for index, state in moments[1].items():
        assert all(torch.equal(value, moments[0][index][name]) for name, value in state.items())


def test_a_fork_compares_both_branches_on_validation() -> None:
    """The slow twin: train both branches by hand from the same weights, and compare the primary's validation loss."""
    run = build(aux=Forked(every=0.5, fork=0.25, batches=2, margin=-10.0))
    (row,) = run.fit().listening
    assert row["step"] == 9
    losses = []
    for schedule in (Switch(0.5), Constant()):  # the fork begins after step 6 and lasts 3 steps
        twin = build(aux=schedule)
        for step in range(9):
            twin.train_step(step)
        twin._bare.eval()
        rows = Rows(6, seed=1, size=20)
        with torch.no_grad():
            found = [twin._bare({"primary": rows.batch(at)}, {"main": 1.0})["main"] for at in (0, 1)]
        losses.append(sum(map(float, found)) / 2)
    assert row["value"] == pytest.approx((losses[0] - losses[1]) / losses[1], rel=1e-3)


def test_the_cosine_is_that_of_gradients_averaged_over_batches() -> None:
    run = build(aux=Aligned(every=0.5, batches=3, threshold=-1.0))
    (row,) = [row for row in run.fit().listening if row["step"] == 6]
    twin = build(aux=Constant())
    for step in range(6):
        twin.train_step(step)
    model = twin._bare  # in training mode, with the same dropout each time
    shared = list(model.encoder.parameters())
    means = []
    for name in ("main", "aux"):
        found = torch.zeros(sum(each.numel() for each in shared))
        for at in range(3):
            torch.manual_seed(step_seed(0, -1, at, 0))
            loss = model({"primary": Rows(6, seed=1, size=20).batch(at)}, {"main": 1.0, "aux": 1.0})[name]
            found += torch.cat([each.flatten() for each in torch.autograd.grad(loss, shared)])
        means.append(found)
    assert row["value"] == pytest.approx(float(functional.cosine_similarity(*means, dim=0)), rel=1e-4)


def test_tasks_that_hear_the_same_share_what_it_costs() -> None:
    def cost(**auxiliaries: Schedule) -> int:
        listening = build(**auxiliaries).fit().ledger.by_task()["listening"]
        return sum(listening.values())

    def hears() -> Flattening:
        return Flattening(every=0.25, batches=1, threshold=-1.0)

    two, one = cost(first=hears(), second=hears()), cost(first=hears())
    assert two - one == 3 * 2 * 6 * 8  # three listenings: the second head alone


def test_a_joint_fork_costs_one_branch_and_stops_all_at_once() -> None:
    def forks(together: bool) -> Forked:
        return Forked(every=0.5, fork=0.25, batches=1, margin=10.0, together=together)

    found = {together: build(one=forks(together), two=forks(together)).fit() for together in (False, True)}
    spent = {together: sum(result.ledger.by_task()["listening"].values()) for together, result in found.items()}
    encoder, head = 2 * 8 * 4 * 8, 2 * 8 * 8  # forward, of a training batch
    validation = 2 * 6 * 4 * 8 + 2 * 6 * 8
    assert spent[False] == 2 * (3 * (2 * encoder + 2 * 3 * head) + 2 * validation)
    assert spent[True] == 3 * (2 * encoder + 3 * head) + 2 * validation
    values = {together: [(row["task"], row["value"]) for row in result.listening] for together, result in found.items()}
    assert [name for name, _ in values[True]] == [name for name, _ in values[False]] == ["one", "two"]
    assert values[True][0][1] == values[True][1][1]
    assert values[False][0][1] != values[False][1][1]
    assert all(row["stopped"] for row in found[True].listening)


def test_a_listener_needs_validation_streams_and_a_name_of_its_own() -> None:
    encoder, tasks = regression(aux=Flattening())
    with pytest.raises(Mt2stError, match="no validation stream named primary"):
        Trainer(encoder, tasks, {"primary": Rows()}, TrainConfig(2))
    with pytest.raises(Mt2stError, match="'listening'"):
        build(listening=Flattening())
    with pytest.raises(Mt2stError, match="must be Constant"):
        MT2ST(Task(Regression("main"), Flattening()))


def test_a_loss_that_is_not_finite_is_named() -> None:
    run = build(aux=Flattening(every=0.1))
    with torch.no_grad():
        head = next(task.objective for name, task in run.mixture.tasks.items() if name == "aux")
        head.head.bias.fill_(math.inf)  # type: ignore[union-attr]
    with pytest.raises(Mt2stError, match="own_loss of task 'aux' is inf"):
        run.listening.attend(2, 0.2)


# -- a budget ---------------------------------------------------------------------------------------------------------


def test_a_budget_pays_for_the_last_step_and_for_no_further_one() -> None:
    whole, primary = step_cost("main", "aux"), step_cost("main")
    result = build(budget=7 * whole + whole // 2, aux=Constant()).fit()
    assert (result.steps, result.ledger.total) == (7, 7 * whole)
    assert result.curve[-1]["step"] == 7
    budget = 10 * whole
    result = build(budget=budget, aux=Switch(0.4)).fit()
    assert result.ledger.total == 4 * whole + (result.steps - 4) * primary
    assert budget - primary < result.ledger.total <= budget


def test_progress_is_the_share_of_the_budget_that_is_spent() -> None:
    run = build(budget=10 * step_cost("main", "aux"), aux=Constant())
    config = run.config
    rates = []
    run.on_step = lambda step: rates.append(run.steps.learning_rate)
    run.fit()
    expected = [learning_rate_of(step / 10, (step + 1) / 10, config) for step in range(10)]
    assert rates == pytest.approx(expected)
    assert rates[0] == pytest.approx(0.05)  # warm-up ends within the first step
    assert 0 < rates[-1] < rates[0] / 20
    assert learning_rate_of(0.0, 0.01, config) == pytest.approx(0.05 * 0.01 / config.warmup_fraction)


def test_a_budget_that_pays_for_no_step_or_no_listening_is_refused() -> None:
    with pytest.raises(Mt2stError, match="less than one step costs"):
        build(budget=step_cost("main", "aux") - 1, aux=Constant()).fit()
    with pytest.raises(Mt2stError, match="listening for aux costs"):
        build(budget=3 * step_cost("main", "aux"), aux=Flattening(every=0.3, batches=40)).fit()
    with pytest.raises(Mt2stError, match="cannot both end a run"):
        TrainConfig(5, total_flops=100)
    with pytest.raises(Mt2stError, match="total_steps = 0 must be"):
        TrainConfig()


def test_listening_never_exceeds_the_budget() -> None:
    """A schedule whose next listening would not be paid for hears no more, and the run goes on to its end."""
    whole = step_cost("main", "aux")
    budget = 12 * whole
    result = build(budget=budget, aux=Flattening(every=0.05, batches=5, threshold=-1.0)).fit()
    assert budget - whole < result.ledger.total <= budget


def test_measuring_a_cost_beforehand_leaves_no_trace() -> None:
    """Running statistics, too: a step's cost is measured on a copy."""
    torch.manual_seed(0)

    class Normed(LinearEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(8)

        def features(self, batch: Any) -> Any:
            found = super().features(batch)
            return {**found, "hidden": self.norm(found["hidden"])}

    encoder = Normed()
    run = Trainer(encoder, MT2ST(Task(Regression("main"))), {"primary": Rows()}, TrainConfig(total_flops=10**6))
    before = {name: value.clone() for name, value in run._bare.state_dict().items()}
    assert run.steps.cost(0, {"main": 1.0}) > 0
    assert all(torch.equal(value, before[name]) for name, value in run._bare.state_dict().items())
    assert all(parameter.grad is None for parameter in run.parameters())
