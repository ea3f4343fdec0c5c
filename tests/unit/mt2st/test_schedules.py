"""Schedules: range, monotony, both endpoints, the cut-off, the sampled coin; and that they need no torch."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mt2st
from mt2st.controls import Late, Linear, Thinned
from mt2st.errors import Mt2stError
from mt2st.listening import Flattening
from mt2st.schedules import (
    Constant,
    Diminish,
    Off,
    Sampled,
    SamplesWeight,
    Schedule,
    Switch,
    coin,
    fades,
    samples_weight,
    stays_constant,
    weight_at,
)

PROGRESS = st.floats(0.0, 1.0)
INITIAL = st.floats(1e-3, 1e3)
DIMINISH = st.builds(Diminish, INITIAL, st.floats(0.0, 20.0), st.floats(0.05, 10.0), st.floats(0.0, 1.0))
SWITCH = st.builds(Switch, st.floats(0.0, 1.0), INITIAL)
LINEAR = st.builds(
    lambda ends, initial: Linear(*sorted(ends), initial), st.tuples(st.floats(0.0, 1.0), st.floats(1e-3, 1.0)), INITIAL
)
PLAIN = st.one_of(st.builds(Constant, INITIAL), st.just(Off()), DIMINISH, SWITCH, LINEAR)
ANY = st.one_of(PLAIN, st.builds(Sampled, PLAIN))


@given(ANY, PROGRESS)
def test_weights_lie_between_zero_and_the_initial_one(schedule: Schedule, progress: float) -> None:
    assert 0.0 <= schedule(progress) <= schedule.initial
    assert isinstance(schedule, Schedule)


@given(ANY, PROGRESS, PROGRESS)
def test_weights_never_rise(schedule: Schedule, one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert schedule(early) >= schedule(late)


@given(ANY)
def test_the_first_weight_is_the_initial_one(schedule: Schedule) -> None:
    """At progress 0; the one exception is a switch at 0, which is single-task from the start."""
    inner = schedule.schedule if isinstance(schedule, Sampled) else schedule
    assert schedule(0.0) == (0.0 if isinstance(inner, Switch) and inner.at == 0.0 else schedule.initial)


@given(DIMINISH)
def test_diminish_ends_at_its_formula_or_at_zero(schedule: Diminish) -> None:
    share = math.exp(-schedule.rate)
    assert schedule(1.0) == (pytest.approx(schedule.initial * share) if share >= schedule.cutoff else 0.0)


@given(DIMINISH, PROGRESS)
def test_diminish_is_the_papers_formula_above_the_cutoff_and_exactly_zero_below(
    schedule: Diminish, progress: float
) -> None:
    weight = schedule.initial * math.exp(-schedule.rate * progress**schedule.shape)
    found = schedule(progress)
    assert found == 0.0 or found == pytest.approx(weight)
    if weight < schedule.cutoff * schedule.initial * (1 - 1e-9):
        assert found == 0.0
    if weight > schedule.cutoff * schedule.initial * (1 + 1e-9):
        assert found > 0.0


def test_known_values() -> None:
    assert Diminish(2.0, rate=3.0, shape=1.0, cutoff=0.0)(0.5) == pytest.approx(2 * math.exp(-1.5))
    assert Diminish(1.0, rate=4.0, shape=2.0, cutoff=0.0)(0.5) == pytest.approx(math.exp(-1.0))
    # e^(−5t) falls below 0.05 at t = ln(20)/5 ≈ 0.599.
    assert Diminish(rate=5.0, cutoff=0.05)(0.59) > 0.0
    assert Diminish(rate=5.0, cutoff=0.05)(0.60) == 0.0


def test_both_endpoints_of_every_knob() -> None:
    grid = [step / 100 for step in range(101)]
    assert all(Diminish(rate=0.0)(t) == 1.0 for t in grid), "rate 0 = Constant"
    assert Diminish(rate=10.0, cutoff=0.0)(1.0) == pytest.approx(4.54e-5, rel=1e-3)
    assert [t for t in grid if Diminish(cutoff=1.0)(t)] == [0.0], "cut-off 1 = off right after the start"
    assert all(Diminish(cutoff=0.0)(t) > 0 for t in grid), "cut-off 0 = never off"
    assert not any(Switch(0.0)(t) for t in grid), "switch at 0 = Off"
    assert [t for t in grid if not Switch(1.0)(t)] == [1.0], "switch at 1 = off only after the last step"


@given(LINEAR, PROGRESS)
def test_linear_is_full_then_a_line_then_zero(schedule: Linear, progress: float) -> None:
    if progress < schedule.start:
        assert schedule(progress) == schedule.initial
    elif progress >= schedule.end:
        assert schedule(progress) == 0.0
    else:
        share = (schedule.end - progress) / (schedule.end - schedule.start)
        assert schedule(progress) == pytest.approx(schedule.initial * share)


@given(st.floats(0.0, 1.0), INITIAL, PROGRESS)
def test_late_is_the_reverse_of_switch(at: float, weight: float, progress: float) -> None:
    late, switch = Late(at, weight), Switch(at, weight)
    assert late(progress) + switch(progress) == weight
    assert late.initial == late(0.0)
    assert isinstance(late, Schedule)


def test_the_controls_at_their_endpoints() -> None:
    grid = [step / 100 for step in range(101)]
    assert all(Late(0.0)(t) == 1.0 for t in grid), "late at 0 = Constant"
    assert [t for t in grid if Late(1.0)(t)] == [1.0], "late at 1 = on only after the last step"
    assert [Linear(0.5, 0.5)(t) for t in grid] == [Switch(0.5)(t) for t in grid], "a line of no length = Switch"
    assert [t for t in grid if not Linear(1.0, 1.0)(t)] == [1.0]
    assert not any(Linear(0.0, 0.0)(t) for t in grid)
    ran = [weight_at(Thinned(1.0, 2.0), step=step, total_steps=50, seed=0, task="a") for step in range(50)]
    assert ran == [2.0] * 50, "share 1 = Constant"


@given(st.floats(0.05, 0.95), INITIAL, st.integers(0, 100))
def test_thinned_runs_at_full_weight_in_its_share_of_the_steps_to_the_end(share: float, full: float, seed: int) -> None:
    schedule, total = Thinned(share, full), 2000
    weights = [weight_at(schedule, step=step, total_steps=total, seed=seed, task="a") for step in range(total)]
    assert set(weights) <= {0.0, full}
    error = math.sqrt(share * (1 - share) / (total / 2))
    for half in (weights[: total // 2], weights[total // 2 :]):
        assert abs(sum(weight > 0 for weight in half) / (total / 2) - share) <= 5 * error
    assert schedule(0.3) == share * full
    assert samples_weight(schedule)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Late(1.5), "at = 1.5 is outside"),
        (lambda: Late(0.5, 0.0), "final = 0.0 must be a finite weight > 0"),
        (lambda: Linear(0.6, 0.5), r"start = 0.6 is outside \[0, 0.5\]"),
        (lambda: Linear(0.0, 1.5), "end = 1.5 is outside"),
        (lambda: Thinned(0.0), "share = 0.0 must be above 0"),
        (lambda: Thinned(1.5), "share = 1.5 must be above 0"),
        (lambda: Thinned(0.5, math.inf), "initial = inf must be a finite weight"),
    ],
)
def test_bad_controls_name_the_cure(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        make()


@given(SWITCH, PROGRESS)
def test_switch_is_full_before_and_zero_from_the_point_on(schedule: Switch, progress: float) -> None:
    assert schedule(progress) == (schedule.initial if progress < schedule.at else 0.0)


@given(st.integers(2, 500), st.floats(0.0, 1.0))
def test_a_switch_runs_its_share_of_the_steps(total_steps: int, at: float) -> None:
    """At most one step more than at·T, which is what step budgets are derived from."""
    active = sum(
        weight_at(Switch(at), step=step, total_steps=total_steps, seed=0, task="a") > 0 for step in range(total_steps)
    )
    assert at * total_steps - 1e-6 <= active <= at * total_steps + 1


# -- sampled -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**63), st.integers(0, 10**9), st.text(max_size=20))
def test_the_coin_is_a_function_of_its_arguments_on_the_unit_interval(seed: int, step: int, task: str) -> None:
    assert 0.0 <= coin(seed, step, task) < 1.0
    assert coin(seed, step, task) == coin(seed, step, task)


def test_the_coin_is_the_same_on_every_machine() -> None:
    """Recorded values: a change of the hash would break the resume of every sampled run."""
    tosses = [coin(0, 0, "masked_lm"), coin(0, 1, "masked_lm"), coin(1, 0, "a")]
    assert tosses == pytest.approx([0.334873679657, 0.789636930721, 0.870054127211], abs=1e-12)


def test_the_coin_is_uniform_and_tasks_seeds_and_steps_are_independent() -> None:
    count = 20_000
    tosses = [coin(0, step, "a") for step in range(count)]
    deciles = [0] * 10
    for toss in tosses:
        deciles[int(toss * 10)] += 1
    chi_square = sum((found - count / 10) ** 2 / (count / 10) for found in deciles)
    assert chi_square < 27.9, "99.9 % quantile of chi-square with 9 degrees of freedom"
    other_task, other_seed = (
        [coin(0, step, "b") for step in range(count)],
        [coin(1, step, "a") for step in range(count)],
    )
    for other in (other_task, other_seed, tosses[1:] + tosses[:1]):
        mean_product = sum((x - 0.5) * (y - 0.5) for x, y in zip(tosses, other)) / count
        assert abs(mean_product) < 4 * (1 / 12) / math.sqrt(count), "four standard errors"


@settings(max_examples=25, deadline=None)
@given(DIMINISH, PROGRESS, st.integers(0, 100))
def test_sampling_is_unbiased(schedule: Diminish, progress: float, seed: int) -> None:
    """Mean of the sampled weight = the schedule's weight, within five standard errors."""
    sampled, count = Sampled(schedule), 4_000
    weights = [sampled.weight(progress, seed=seed, step=step, task="t") for step in range(count)]
    assert set(weights) <= {0.0, schedule.initial}
    probability = sampled.probability(progress)
    error = schedule.initial * math.sqrt(max(probability * (1 - probability), 0.0) / count)
    assert abs(sum(weights) / count - schedule(progress)) <= 5 * error + 1e-9 * schedule.initial


@given(st.builds(Sampled, PLAIN), st.integers(0, 99), st.integers(0, 9), st.sampled_from("ab"))
def test_sampled_weights_need_no_state(schedule: Sampled, step: int, seed: int, task: str) -> None:
    """The weight of a step is the same whether the steps before were run or not: resume and every rank agree."""
    straight = [weight_at(schedule, step=one, total_steps=100, seed=seed, task=task) for one in range(step + 1)]
    assert weight_at(schedule, step=step, total_steps=100, seed=seed, task=task) == straight[-1]
    assert straight[-1] in (0.0, schedule.initial)


def test_sampled_ends() -> None:
    always, never = Sampled(Constant(2.0)), Sampled(Off())
    assert all(always.weight(0.5, seed=0, step=step, task="t") == 2.0 for step in range(200))
    assert not any(never.weight(0.5, seed=0, step=step, task="t") for step in range(200))


def test_a_rising_schedule_cannot_be_sampled() -> None:
    class Rising:
        initial = 0.5

        def __call__(self, progress: float) -> float:
            return 0.5 + progress

    with pytest.raises(Mt2stError, match="exceeds initial"):
        Sampled(Rising()).probability(0.5)


class Alternating:
    """A user's schedule that draws, at every second step; it inherits nothing."""

    initial = 1.0

    def __call__(self, progress: float) -> float:
        return 0.5

    def weight(self, progress: float, *, seed: int, step: int, task: str) -> float:
        return float((step + seed) % 2)


def test_a_schedule_that_samples_is_known_by_its_method() -> None:
    weights = [weight_at(Alternating(), step=step, total_steps=4, seed=1, task="a") for step in range(4)]
    assert weights == [1.0, 0.0, 1.0, 0.0]
    assert isinstance(Alternating(), SamplesWeight)
    assert samples_weight(Sampled(Constant()))


def test_a_number_named_weight_is_no_method() -> None:
    @dataclass(frozen=True)
    class Half:
        weight: float = 0.5
        initial: float = 0.5

        def __call__(self, progress: float) -> float:
            return self.weight

    assert not samples_weight(Half())
    assert weight_at(Half(), step=0, total_steps=1, seed=0, task="a") == 0.5


@pytest.mark.parametrize(
    ("schedule", "constant"),
    [
        (Constant(2.0), True),
        (Diminish(rate=0.0), True),
        (lambda progress: 0.3, True),
        (Off(), False),
        (Switch(1.0), False),
        (Switch(0.995), False),
        (Diminish(), False),
        (Alternating(), False),
        (lambda progress: 1.0 if not 0.4 < progress < 0.6 else 0.0, False),
    ],
)
def test_what_stays_constant(schedule: Schedule, constant: bool) -> None:
    assert stays_constant(schedule) is constant


# -- use and misuse ----------------------------------------------------------------------------------------------------


def test_which_schedules_let_their_task_go() -> None:
    going = (Switch(at=0.9), Diminish(rate=1.0, cutoff=0.0), Sampled(Diminish()), Linear(0.2, 1.0), Flattening())
    staying = (Constant(), Off(), Switch(at=1.0), Diminish(rate=0.0), Thinned(0.5), Late(at=0.6))
    assert all(fades(schedule) for schedule in going)
    assert not any(fades(schedule) for schedule in staying)


def test_three_lines_in_a_strangers_loop() -> None:
    calls = []

    def auxiliary(step: int) -> float:
        calls.append(step)
        return 1.0

    total_steps = 10
    fade = Diminish(initial=1.0, rate=5.0, shape=1.0, cutoff=0.05)
    for step in range(total_steps):
        weight = fade(step / total_steps)
        loss = 1.0 + (weight * auxiliary(step) if weight else 0.0)
        assert loss >= 1.0
    assert calls == [0, 1, 2, 3, 4, 5], "from ln(20)/5 ≈ 0.6 on the auxiliary is never called"


def test_schedules_are_values() -> None:
    assert Diminish(rate=2.0) == Diminish(rate=2.0)
    assert len({Switch(0.4), Switch(0.4), Switch(0.5)}) == 2
    with pytest.raises(AttributeError):
        Switch(0.4).at = 0.5  # type: ignore[misc]
    assert mt2st.Diminish is Diminish


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(0.0), "switch a task off use Off"),
        (lambda: Constant(-1.0), "must be a finite weight > 0"),
        (lambda: Constant(math.nan), "must be a finite weight > 0"),
        (lambda: Constant(math.inf), "must be a finite weight > 0"),
        (lambda: Off(1.0), "Off always weighs 0"),
        (lambda: Diminish(rate=-1.0), "rate = -1.0"),
        (lambda: Diminish(rate=math.nan), "rate = nan"),
        (lambda: Diminish(shape=0.0), "shape = 0.0"),
        (lambda: Diminish(shape=math.inf), "shape = inf"),
        (lambda: Diminish(cutoff=1.1), r"cutoff = 1.1 is outside \[0, 1\]"),
        (lambda: Diminish(cutoff=-0.1), "cutoff = -0.1"),
        (lambda: Switch(1.5), r"at = 1.5 is outside \[0, 1\]"),
        (lambda: Switch(math.nan), "at = nan"),
        (lambda: Switch(0.5, initial=0.0), "initial = 0.0"),
        (lambda: Constant()(1.01), "progress = 1.01"),
        (lambda: Off()(-0.01), "progress = -0.01"),
        (lambda: Diminish()(math.nan), "pass step / total_steps"),
        (lambda: Switch(0.5)(2.0), "progress = 2.0"),
        (lambda: weight_at(Constant(), step=10, total_steps=10, seed=0, task="a"), "step = 10 is outside"),
        (lambda: weight_at(Constant(), step=-1, total_steps=10, seed=0, task="a"), "step = -1 is outside"),
        (
            lambda: weight_at(lambda progress: -1.0, step=0, total_steps=1, seed=0, task="a"),
            "task 'a' gave weight -1.0",
        ),
        (lambda: weight_at(lambda progress: math.nan, step=0, total_steps=1, seed=0, task="a"), "finite"),
    ],
)
def test_bad_knobs_name_value_range_and_cure(make, message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        make()


def test_importing_schedules_imports_no_torch() -> None:
    heavy = "('torch', 'numpy', 'transformers')"
    code = f"import sys, mt2st.schedules; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
