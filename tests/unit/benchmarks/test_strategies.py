"""Strategies, step planning for a FLOPs budget, and knobs."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cases.vqa import knobs as vqa
from benchmarks.strategies import (
    STRATEGY_KNOBS,
    SuiteKnobs,
    Switching,
    from_plain,
    steps_for_budget,
    training_flops,
)
from mt2st.errors import Mt2stError
from mt2st.schedules import Constant, Diminish, Off, Sampled, Switch

PRIMARY_COST, AUXILIARY_COST = 5, 7


def cost(active: tuple[str, ...]) -> int:
    return PRIMARY_COST + AUXILIARY_COST * (len(active) - 1)


@given(at=st.floats(0, 1), budget=st.integers(100, 5000))
def test_switch_steps_follow_the_formula(at: float, budget: int) -> None:
    steps = steps_for_budget(budget, {"aux": Switch(at)}, "vqa", cost, seed=0)
    # The switch falls on a whole step: one auxiliary step more costs up to 7 / 5 primary steps, and a part of a step is
    # not run.
    assert abs(steps - budget / (PRIMARY_COST + at * AUXILIARY_COST)) <= AUXILIARY_COST / PRIMARY_COST + 1


@pytest.mark.parametrize(
    "schedule",
    [Off(), Constant(2.0), Switch(0.4), Diminish(rate=4.0), Sampled(Diminish(rate=3.0))],
    ids=lambda schedule: type(schedule).__name__,
)
def test_budget_is_kept_and_used(schedule: object) -> None:
    schedules = {"aux": schedule, "more": schedule}
    steps = steps_for_budget(4000, schedules, "vqa", cost, seed=3)  # type: ignore[arg-type]
    spent = training_flops(schedules, "vqa", cost, steps, seed=3)  # type: ignore[arg-type]
    assert spent <= 4000
    assert spent > 4000 - 3 * cost(("vqa", "aux", "more"))


def test_single_and_multi_task_costs() -> None:
    assert training_flops({"aux": Off()}, "vqa", cost, 10, seed=0) == 10 * PRIMARY_COST
    assert training_flops({"aux": Constant()}, "vqa", cost, 10, seed=0) == 10 * (PRIMARY_COST + AUXILIARY_COST)


def test_budget_below_one_step() -> None:
    with pytest.raises(Mt2stError, match="less than one step"):
        steps_for_budget(4, {"aux": Off()}, "vqa", cost, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategies": ("Swich",)}, "did you mean 'Switch'"),
        ({"views": ("equal-stepz",)}, "did you mean 'equal-steps'"),
        ({"steps": 0}, "steps = 0"),
        ({"seeds": 0}, "seeds = 0"),
        ({"budget": -1.0}, "budget = -1.0"),
        ({"budget_share": 0.0}, "budget_share"),
        ({"switch": Switching(at=1.5)}, r"at = 1.5 is outside \[0, 1\]"),
        ({"strategies": ()}, "must not be empty"),
        ({"threads": -1}, "threads = -1"),
    ],
)
def test_bad_knobs_name_the_cure(change: dict[str, object], message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        SuiteKnobs(**change)  # type: ignore[arg-type]


def test_knobs_survive_a_config_file() -> None:
    knobs = vqa.Knobs(steps=77, switch=Switching(at=0.7), auxiliaries=("contrastive", "masked_lm"))
    values = json.loads(
        json.dumps({**knobs.shared(), **{name: asdict(getattr(knobs, name)) for name in STRATEGY_KNOBS.values()}})
    )
    back = from_plain(vqa.Knobs, values)
    assert back.shared() == knobs.shared()
    assert back.switch == knobs.switch
    with pytest.raises(Mt2stError, match="unknown knob"):
        from_plain(vqa.Knobs, {"stepz": 3})


def test_tuning_effort_is_equal() -> None:
    assert set(vqa.TRIALS) == set(STRATEGY_KNOBS)
    assert len({len(trials) for trials in vqa.TRIALS.values()}) == 1
    assert all(len(set(trials)) == len(trials) for trials in vqa.TRIALS.values())
