"""Schedules that tell what a fading one gains by its time, its order and its shape. No torch.

`Thinned` runs a task as often as a fading schedule does, at any time; `Late` runs it when `Switch` does not; `Linear`
lets tasks leave one after the other, along a line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mt2st.errors import Mt2stError, check_range
from mt2st.randomness import coin
from mt2st.schedules import check_initial, check_progress


@dataclass(frozen=True)
class Linear:
    """Full weight until a point, then down a line to 0 at another one.

    Attributes:
        start: progress ∈ [0, end] from which the weight falls. start = end is `Switch(at=end)`.
        end: progress ∈ [0, 1] from which the weight is 0. 0 = single-task from the start; 1 = off only after the last
            step.
        initial: γ₀ > 0, the weight before `start`.
    """

    start: float
    end: float
    initial: float = 1.0

    def __post_init__(self) -> None:
        check_initial(self.initial)
        check_range("end", self.end, 0.0, 1.0, "it is a share of the total steps, for example 0.8")
        check_range("start", self.start, 0.0, self.end, "the weight falls between start and end")

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        if progress >= self.end:
            return 0.0
        if progress <= self.start:
            return self.initial
        return self.initial * (self.end - progress) / (self.end - self.start)


@dataclass(frozen=True)
class Late:
    """0 until a point, then full weight: the reverse of `Switch`, a control for the order of tasks.

    Attributes:
        at: progress ∈ [0, 1] from which the task runs. 0 = Constant; 1 = on only after the last step.
        final: the weight from there on, > 0.
    """

    at: float
    final: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.final) and self.final > 0):
            raise Mt2stError(f"final = {self.final!r} must be a finite weight > 0; to switch a task off use Off()")
        check_range("at", self.at, 0.0, 1.0, "it is a share of the total steps, for example 0.6")

    @property
    def initial(self) -> float:
        return 0.0 if self.at > 0 else self.final

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.final if progress >= self.at else 0.0


@dataclass(frozen=True)
class Thinned:
    """Full weight in a share of the steps, drawn at random to the end: a control for *when* a task runs.

    The coin is that of `Sampled`. Calling the schedule gives the *expected* weight, share · initial.

    Attributes:
        share: probability ∈ (0, 1] that the task runs at a step. 1 = Constant; towards 0 = single-task.
        initial: the weight of a step at which it runs, > 0, from the first to the last.
    """

    share: float = 0.5
    initial: float = 1.0

    def __post_init__(self) -> None:
        check_initial(self.initial)
        if not 0.0 < self.share <= 1.0:
            raise Mt2stError(f"share = {self.share!r} must be above 0 and at most 1; it is a share of the steps")

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.share * self.initial

    def weight(self, progress: float, *, seed: int, step: int, task: str) -> float:
        """`initial` with probability `share`, else 0."""
        check_progress(progress)
        return self.initial if coin(seed, step, task) < self.share else 0.0
