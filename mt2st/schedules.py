"""Schedules: how much an auxiliary task weighs as training progresses.

A schedule is a frozen, pure function `progress ∈ [0, 1] → weight ≥ 0`. Being pure, it needs no state to resume, and
every rank of a distributed run agrees on it. This module imports no torch, so it can be taken into any training loop:

    fade = Diminish(initial=1.0, rate=5.0, shape=1.0, cutoff=0.05)
    weight = fade(step / total_steps)
    loss = primary(batch) + (weight * auxiliary(batch) if weight else 0.0)

The conditional is where the saving comes from: multiplying by zero costs as much as multiplying by one.

A schedule of your own inherits nothing. `Schedule` says what it offers, `SamplesWeight` what one offers that draws
whether its task runs, `Listens` what one offers whose weight also follows from what training measures for it, and
`describe` how a resumed run tells it from another one.
Source of Diminish and Switch: MT2ST, arXiv 2406.18038.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard, get_args, runtime_checkable

from mt2st.descriptions import DescriptionError, describe_value, qualified_name
from mt2st.errors import Mt2stError, check_range
from mt2st.randomness import coin

__all__ = [
    "Constant",
    "Diminish",
    "Listens",
    "Off",
    "Sampled",
    "SamplesWeight",
    "Schedule",
    "Switch",
    "coin",
    "describe",
    "fades",
    "listens",
    "samples_weight",
    "stays_constant",
    "weight_at",
    "weight_of",
]
Signal = Literal["own_loss", "benefit", "joint_benefit", "cosine"]
SIGNALS: tuple[str, ...] = get_args(Signal)
_POINTS = 100  # a schedule counts as constant if it is so at this many steps of progress


@runtime_checkable
class Schedule(Protocol):
    """Progress → weight.

    A user's schedule inherits nothing; it only has to be callable like this and to know its start.

    Does *not* assume monotony: a schedule may rise, as `mt2st.controls.Late` does.
    """

    @property
    def initial(self) -> float:
        """γ₀, the weight at progress 0 (dimensionless, ≥ 0)."""

    def __call__(self, progress: float) -> float:
        """Weight at `progress` ∈ [0, 1] = optimiser steps done / total optimiser steps.

        0 means: do not run the task.
        """


@runtime_checkable
class SamplesWeight(Protocol):
    """What a schedule offers that draws at each step whether its task runs, as `Sampled` does.

    `weight_at` asks this method in place of the schedule itself, which goes on giving the expected weight.
    """

    def weight(self, progress: float, *, seed: int, step: int, task: str) -> float:
        """The weight drawn for this step, 0 = the task does not run. Depends on the arguments alone."""


def samples_weight(schedule: object) -> TypeGuard[SamplesWeight]:
    """Whether `schedule` has a method `weight`. A number of that name, such as a dataclass's field, is none."""
    return callable(getattr(schedule, "weight", None))


@runtime_checkable
class Listens(Protocol):
    """What a schedule offers whose weight also follows from what it has heard, as those of `mt2st.listening` do.

    Calling it gives the weight after all that it has heard so far. Its state is explicit: who trains stores
    `state_dict()` in a checkpoint, and a resumed run loads it. It must not change otherwise.
    """

    @property
    def signal(self) -> Signal:
        """What it hears, measured on the validation split.

        "own_loss": the loss of its own task. "benefit": of a short fork, (the primary's loss after training without
        its task − with it) / with it. "joint_benefit": the same of one fork without all tasks that hear this and are
        due at the same step. "cosine": of the gradients of its task's and the primary's loss.
        """

    @property
    def every(self) -> float:
        """Progress between two listenings, in (0, 1]."""

    @property
    def batches(self) -> int:
        """Validation batches that a listening takes."""

    @property
    def length(self) -> float:
        """Progress that a fork lasts, in (0, 1); 0 for the other signals."""

    @property
    def stopped(self) -> bool:
        """Whether its task has stopped for good: then it hears no more, and listening costs nothing."""

    def hear(self, value: float) -> None:
        """The value of its signal, finite, and the same in every process."""

    def state_dict(self) -> dict[str, Any]:
        """What it has heard and decided, as plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""


def listens(schedule: object) -> TypeGuard[Listens]:
    """Whether `schedule` has a method `hear`."""
    return callable(getattr(schedule, "hear", None))


def check_initial(initial: float) -> None:
    if not (math.isfinite(initial) and initial > 0):
        raise Mt2stError(f"initial = {initial!r} must be a finite weight > 0; to switch a task off use Off()")


def check_progress(progress: float) -> None:
    check_range("progress", progress, 0.0, 1.0, "pass step / total_steps")


@dataclass(frozen=True)
class Constant:
    """Multi-task training: the weight never changes.

    Attributes:
        initial: the weight, > 0.
    """

    initial: float = 1.0

    def __post_init__(self) -> None:
        check_initial(self.initial)

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.initial


@dataclass(frozen=True)
class Off:
    """Single-task training: the auxiliary never runs."""

    initial: float = 0.0

    def __post_init__(self) -> None:
        if self.initial != 0.0:
            raise Mt2stError(f"Off(initial={self.initial!r}): Off always weighs 0; use Constant for another weight")

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return 0.0


@dataclass(frozen=True)
class Diminish:
    """Gradual fading, γ(t) = γ₀·exp(−η·t^ν), exactly 0 once γ(t) < cutoff·γ₀ (arXiv 2406.18038; the cut-off is ours).

    An exponential never reaches 0 by itself, and a task with a weight of 10⁻⁶ costs as much as one with weight 1; the
    cut-off is what lets Diminish save anything when every step runs every active task.

    Attributes:
        initial: γ₀ > 0, the weight at the start.
        rate: η ≥ 0 per unit of progress^ν. 0 = never fades (Constant); 10 = at 0.005 % of γ₀ by the end.
        shape: ν > 0. 1 = plain exponential; below 1 falls at once and then slowly, above 1 stays high and then falls.
        cutoff: share of γ₀ in [0, 1] below which the weight is exactly 0. 0 = never cut off; 1 = cut off at once after
            t = 0.
    """

    initial: float = 1.0
    rate: float = 5.0
    shape: float = 1.0
    cutoff: float = 0.05

    def __post_init__(self) -> None:
        check_initial(self.initial)
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise Mt2stError(
                f"rate = {self.rate!r} must be finite and ≥ 0; 0 never fades, 10 fades to 0.005 % of the start"
            )
        if not (math.isfinite(self.shape) and self.shape > 0):
            raise Mt2stError(f"shape = {self.shape!r} must be finite and > 0; 1 is the plain exponential")
        check_range("cutoff", self.cutoff, 0.0, 1.0, "it is a share of the initial weight, for example 0.05")

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        share = math.exp(-self.rate * progress**self.shape)
        return self.initial * share if share >= self.cutoff else 0.0


@dataclass(frozen=True)
class Switch:
    """Full weight until a point, then 0 from that point on (arXiv 2406.18038).

    Attributes:
        at: progress ∈ [0, 1] from which the weight is 0. 0 = single-task from the start; 1 = off only after the last
            step.
        initial: γ₀ > 0, the weight before the switch.
    """

    at: float
    initial: float = 1.0

    def __post_init__(self) -> None:
        check_initial(self.initial)
        check_range("at", self.at, 0.0, 1.0, "it is a share of the total steps, for example 0.4")

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.initial if progress < self.at else 0.0


@dataclass(frozen=True)
class Sampled:
    """Runs the auxiliary with probability γ(t)/γ₀ at weight γ₀.

    The gradient is the same in expectation, and the cost falls with γ.

        fade = Sampled(Diminish(rate=3.0))
        weight = fade.weight(step / total_steps, seed=0, step=step, task="masked_lm")
        loss = primary(batch) + (weight * auxiliary(batch) if weight else 0.0)

    The coin of a step is a hash of (seed, step, task) and of nothing else, so a resumed run and every rank toss the
    same. Calling the schedule itself, `fade(progress)`, gives the *expected* weight γ(t), as for any other schedule.

    Attributes:
        schedule: the schedule to sample; its weights must never exceed its `initial` (checked when called).
    """

    schedule: Schedule

    def __post_init__(self) -> None:
        if listens(self.schedule):
            raise Mt2stError(f"Sampled({self.schedule!r}): a schedule that listens cannot be sampled; use it as it is")

    @property
    def initial(self) -> float:
        return self.schedule.initial

    def __call__(self, progress: float) -> float:
        return self.schedule(progress)

    def probability(self, progress: float) -> float:
        """Probability ∈ [0, 1] that the auxiliary runs at `progress`."""
        weight = self.schedule(progress)
        if weight == 0.0:
            return 0.0
        if weight > self.initial:
            raise Mt2stError(
                f"Sampled({self.schedule!r}) at progress {progress:g}: weight {weight:g} exceeds initial "
                f"{self.initial:g}, so it is no probability; give a schedule whose largest weight is its initial one"
            )
        return weight / self.initial

    def weight(self, progress: float, *, seed: int, step: int, task: str) -> float:
        """γ₀ with probability γ(progress)/γ₀, else 0."""
        return self.initial if coin(seed, step, task) < self.probability(progress) else 0.0


def weight_at(schedule: Schedule, *, step: int, total_steps: int, seed: int, task: str) -> float:
    """The weight that `schedule` gives to optimiser step `step` ∈ [0, total_steps): sampled where the schedule samples.

    Raises:
        Mt2stError: `step` is not in the range, or the weight is negative or not finite.
    """
    if not 0 <= step < total_steps:
        raise Mt2stError(f"step = {step} is outside [0, total_steps = {total_steps})")
    return weight_of(schedule, step / total_steps, step=step, seed=seed, task=task)


def weight_of(schedule: Schedule, progress: float, *, step: int, seed: int, task: str) -> float:
    """As `weight_at`, where progress is no share of the steps; the step decides a sampled schedule's coin.

    Raises:
        Mt2stError: the weight is negative or not finite.
    """
    if samples_weight(schedule):
        weight = schedule.weight(progress, seed=seed, step=step, task=task)
    else:
        weight = schedule(progress)
    if not (math.isfinite(weight) and weight >= 0):
        raise Mt2stError(
            f"schedule {schedule!r} of task {task!r} gave weight {weight!r} at step {step}; weights must be finite and "
            "≥ 0"
        )
    return weight


def stays_constant(schedule: Schedule) -> bool:
    """Whether `schedule` keeps one weight > 0 from the first step to the last, at 101 points of progress, undrawn."""
    if samples_weight(schedule) or listens(schedule):
        return False
    first = schedule(0.0)
    return first > 0 and all(schedule(point / _POINTS) == first for point in range(1, _POINTS + 1))


def describe(schedule: object) -> Any:
    """What tells `schedule` from every other one: its type and all its parameters, as a JSON value.

        describe(Switch(at=0.4))
        # {"type": "mt2st.schedules.Switch", "parameters": {"at": 0.4, "initial": 1.0}}

    A dataclass is described by its fields, any other object by its attributes, private ones included, and a function by
    its code, defaults and closure; `mt2st.descriptions` has the rules. A schedule may say itself what it is: its method
    `describe()`, without arguments, then returns all that decides its weights as plain values. A run is resumed only if
    the descriptions of its schedules are equal.

    Raises:
        Mt2stError: an attribute has no description, such as a lock or a generator.
    """
    try:
        return describe_value(schedule)
    except DescriptionError as error:
        where = f"its attribute {error.place!r}" if error.place else "it"
        raise Mt2stError(
            f"schedule {qualified_name(type(schedule))} cannot be told from one with other parameters: {where} is a "
            f"{error.kind}; make the schedule a dataclass, give it plain values, or give it a method describe() that "
            "returns its parameters"
        ) from None


def fades(schedule: Schedule) -> bool:
    """Whether `schedule` lets its task go: its weight, expected where it is drawn, is lower near the end than at first.

    One that listens may let it go, so it does.

    >>> fades(Switch(at=0.4)), fades(Constant()), fades(Off())
    (True, False, False)
    """
    return listens(schedule) or schedule(1.0 - 1.0 / _POINTS) < schedule(0.0)
