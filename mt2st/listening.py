"""Schedules that listen: an auxiliary stops when training itself shows that it has done its work.

Each has its full weight until it stops, as `Switch` has, and finds the point by what it hears on the validation split:
`Flattening` the loss of its own task, `Forked` what a short fork without the task does to the primary's loss, `Aligned`
the cosine of the task's gradient and the primary's. They hear and remember; who trains measures (`Trainer` does).
This module imports no torch, so it can be taken into any training loop:

    fade = Flattening(patience=3, threshold=0.08)
    if (step + 1) % 50 == 0 and not fade.stopped:
        fade.hear(auxiliary_loss_on_validation())
    weight = fade(step / total_steps)

What was heard is the whole state: `state_dict()` goes into a checkpoint, `load_state_dict()` goes on from it.
Sources: task-wise early stopping, Zhang et al., ECCV 2014 (Flattening); ForkMerge, arXiv 2301.12618 (Forked); gradient
cosine, arXiv 1812.02224 (Aligned).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from mt2st.errors import Mt2stError, check_range
from mt2st.schedules import Signal

__all__ = ["Aligned", "Flattening", "Forked", "flattened"]


def flattened(losses: Sequence[float], patience: int, threshold: float) -> bool:
    """Whether the last `patience` losses brought at most `threshold` of all that was gained since the first loss.

    What the window brought is best before − best in it; what was gained is first − best of all. So neither the loss's
    scale nor its floor matters. Without a loss before the window nothing has flattened.

    >>> flattened([3.0, 1.2, 1.0, 0.95, 0.9], patience=2, threshold=0.1)
    True
    """
    if len(losses) <= patience:
        return False
    before, last = min(losses[:-patience]), min(losses[-patience:])
    return before - last <= threshold * (losses[0] - min(before, last))


@dataclass(eq=False)
class _Listener(ABC):
    """Full weight until `says_stop`, then 0 for good. Settings are fields; what was heard is no part of a description.

    Attributes:
        initial: γ₀ > 0, the weight before the stop.
        every: progress ∈ (0, 1] between two listenings. Small = a precise stop that costs more; 1 = never listens.
        batches: validation batches of a listening, ≥ 1. More = less noise at a higher cost.
    """

    signal: ClassVar[Signal]

    initial: float = 1.0
    every: float = 0.05
    batches: int = 4
    _heard: list[float] = field(default_factory=list, init=False, repr=False, compare=False)
    _stopped: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.initial) and self.initial > 0):
            raise Mt2stError(f"initial = {self.initial!r} must be a finite weight > 0; to switch a task off use Off()")
        if not 0.0 < self.every <= 1.0:
            raise Mt2stError(f"every = {self.every!r} must be above 0 and at most 1, for example 0.05")
        if self.batches < 1:
            raise Mt2stError(f"batches = {self.batches!r} must be ≥ 1")

    @property
    def length(self) -> float:
        """No fork: 0."""
        return 0.0

    @property
    def stopped(self) -> bool:
        """Whether the task has stopped."""
        return self._stopped

    @property
    def heard(self) -> tuple[float, ...]:
        """The values heard so far."""
        return tuple(self._heard)

    @abstractmethod
    def says_stop(self, heard: Sequence[float]) -> bool:
        """Whether the task stops after these values, the last one just heard; depends on them alone."""

    def hear(self, value: float) -> None:
        """Take in the next value of the signal.

        Raises:
            Mt2stError: it is not finite.
        """
        if not math.isfinite(value):
            raise Mt2stError(f"{self!r} heard {value!r}; a signal must be finite: lower the learning rate")
        self._heard.append(float(value))
        self._stopped = self._stopped or self.says_stop(self._heard)

    def __call__(self, progress: float) -> float:
        check_range("progress", progress, 0.0, 1.0, "pass step / total_steps")
        return 0.0 if self._stopped else self.initial

    def describe(self) -> dict[str, Any]:
        """The settings alone: a run that has heard something is still the same run."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    def state_dict(self) -> dict[str, Any]:
        return {"heard": list(self._heard), "stopped": self._stopped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._heard, self._stopped = [float(value) for value in state["heard"]], bool(state["stopped"])


@dataclass(eq=False)
class Flattening(_Listener):
    """Stops when the loss of its own task on validation flattens; see `flattened`.

    Attributes:
        patience: listenings of the window, ≥ 1. 1 = stops at the first one without enough improvement.
        threshold: share of all that was gained so far that the window must bring, or the task stops. 0 = stops when the
            window brings nothing; 1 = stops after the first window; negative = stops when the loss rises by that share.
    """

    signal: ClassVar[Signal] = "own_loss"

    patience: int = 3
    threshold: float = 0.08

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_patience(self.patience)
        check_range("threshold", self.threshold, -1.0, 1.0, "it is a share of what was gained so far, for example 0.08")

    def says_stop(self, heard: Sequence[float]) -> bool:
        return flattened(heard, self.patience, self.threshold)


@dataclass(eq=False)
class Forked(_Listener):
    """Stops when short forks show no benefit for the primary: the mean of the last `patience` benefits is ≤ `margin`.

    A fork trains `length` of progress without the task, from a copy of model and optimiser that is thrown away; the run
    itself goes on with it. Then benefit = (the primary's validation loss without − with) / with. ForkMerge keeps a
    mixture of its branches; here the branch with the task is kept always, so a fork that finds no benefit stops the
    task and undoes nothing.

    Attributes:
        fork: progress ∈ (0, every] that a fork lasts. Short = cheap, and blind to what helps only later.
        margin: relative benefit that the task must exceed. 0 = any benefit will do; −∞ (say −10) = never stops.
        patience: forks whose benefits are averaged, ≥ 1.
        together: False = a fork without this task alone; True = one without all such tasks that are due at the same
            step, which costs one branch instead of one a task, and stops them all at once.
    """

    every: float = 0.1
    fork: float = 0.02
    margin: float = 0.0
    patience: int = 1
    together: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_patience(self.patience)
        if not 0.0 < self.fork <= self.every:
            raise Mt2stError(f"fork = {self.fork!r} must be above 0 and at most every = {self.every!r}")
        if not math.isfinite(self.margin):
            raise Mt2stError(f"margin = {self.margin!r} must be finite, for example 0")

    @property
    def signal(self) -> Signal:  # type: ignore[override]  # a class variable of the others
        return "joint_benefit" if self.together else "benefit"

    @property
    def length(self) -> float:
        return self.fork

    def says_stop(self, heard: Sequence[float]) -> bool:
        return len(heard) >= self.patience and math.fsum(heard[-self.patience :]) / self.patience <= self.margin


@dataclass(eq=False)
class Aligned(_Listener):
    """Stops when its gradient no longer points the primary's way: the mean of the last `patience` cosines is below
    `threshold`.

    The cosine is that of the two losses' gradients, each averaged over `batches` validation batches, by the parameters
    that both of them reach.

    Attributes:
        threshold: cosine ∈ [−1, 1] below which the task stops. −1 = never stops, the cosine is only logged; 0 = stops
            when the gradients point apart (arXiv 1812.02224).
        patience: cosines that are averaged, ≥ 1.
    """

    signal: ClassVar[Signal] = "cosine"

    threshold: float = 0.0
    patience: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_patience(self.patience)
        check_range("threshold", self.threshold, -1.0, 1.0, "it is a cosine; −1 never stops")

    def says_stop(self, heard: Sequence[float]) -> bool:
        return len(heard) >= self.patience and math.fsum(heard[-self.patience :]) / self.patience < self.threshold


def _check_patience(patience: int) -> None:
    if patience < 1:
        raise Mt2stError(f"patience = {patience!r} must be ≥ 1 listening")
