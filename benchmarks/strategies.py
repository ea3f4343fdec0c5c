"""The compared strategies and the knobs that every case's suite has. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_type_hints

from mt2st.errors import Mt2stError, check_range, unknown_name
from mt2st.schedules import Constant, Diminish, Off, Sampled, Schedule, Switch, weight_at

Knobs = TypeVar("Knobs")
_CONDITIONS = (
    "data_folder",
    "options",
    "data_workers",
    "on_leak",
    "trackers",
    "checkpoint_every_seconds",
    "checkpoint_every_steps",
)
EQUAL_STEPS: Literal["equal-steps"] = "equal-steps"
EQUAL_BUDGET: Literal["equal-budget"] = "equal-budget"
View = Literal["equal-steps", "equal-budget"]
VIEWS: tuple[View, ...] = (EQUAL_STEPS, EQUAL_BUDGET)


class Strategy(Protocol):
    """How a strategy schedules its auxiliaries, and how it was tuned."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""

    def schedule(self) -> Schedule:
        """The schedule of every auxiliary."""


@dataclass(frozen=True)
class SingleTask:
    """STL: the primary task alone."""

    learning_rate: float = 2e-3
    """peak learning rate"""

    def schedule(self) -> Schedule:
        return Off()


@dataclass(frozen=True)
class MultiTask:
    """MTL: all tasks to the end."""

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: float = 1.0
    """weight of each auxiliary's loss; the primary's is 1"""

    def schedule(self) -> Schedule:
        return Constant(self.weight)


@dataclass(frozen=True)
class Diminishing:
    """Diminish: auxiliaries fade as γ₀·exp(−rate·t^shape) and stop below the cut-off."""

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: float = 1.0
    """γ₀, weight of each auxiliary's loss at the start"""
    rate: float = 5.0
    """η, decay per unit of progress^shape; 0 = never fades"""
    shape: float = 1.0
    """ν, exponent of progress; above 1 stays high, then falls"""
    cutoff: float = 0.05
    """share of γ₀ below which the weight is exactly 0; 0 = never cut off"""

    def schedule(self) -> Schedule:
        return Diminish(self.weight, self.rate, self.shape, self.cutoff)


@dataclass(frozen=True)
class SampledDiminishing(Diminishing):
    """Sampled Diminish: auxiliaries run at weight γ₀ with probability γ(t)/γ₀."""

    def schedule(self) -> Schedule:
        return Sampled(Diminish(self.weight, self.rate, self.shape, self.cutoff))


@dataclass(frozen=True)
class Switching:
    """Switch: auxiliaries at full weight until a point, then none."""

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: float = 1.0
    """weight of each auxiliary's loss before the switch"""
    at: float = 0.4
    """progress in [0, 1] at which the auxiliaries stop"""

    def schedule(self) -> Schedule:
        return Switch(self.at, self.weight)


def trials_around(learning_rate: float) -> dict[str, tuple[Strategy, ...]]:
    """Four settings a strategy for `tune`, around a case's usual peak learning rate: the same effort for each."""
    low, usual, high, highest = (factor * learning_rate for factor in (0.5, 1.0, 2.0, 4.0))
    return {
        "STL": tuple(SingleTask(rate) for rate in (low, usual, high, highest)),
        "MTL": tuple(MultiTask(rate, weight) for rate in (usual, high) for weight in (0.3, 1.0)),
        "Diminish": (
            Diminishing(usual, 1.0, rate=3.0),
            Diminishing(high, 1.0, rate=3.0),
            Diminishing(high, 0.3, rate=3.0),
            Diminishing(usual, 1.0, rate=6.0, shape=2.0),
        ),
        "Switch": (
            Switching(usual, 1.0, at=0.3),
            Switching(high, 1.0, at=0.3),
            Switching(high, 0.3, at=0.3),
            Switching(usual, 1.0, at=0.6),
        ),
        "Sampled Diminish": (
            SampledDiminishing(usual, 1.0, rate=3.0),
            SampledDiminishing(high, 1.0, rate=3.0),
            SampledDiminishing(high, 0.3, rate=3.0),
            SampledDiminishing(usual, 1.0, rate=6.0, shape=2.0),
        ),
    }


@dataclass(frozen=True)
class SuiteKnobs:
    """What every case's suite has; a case adds its own."""

    steps: int = 1000
    """optimiser steps of every strategy in the equal-steps view"""
    seeds: int = 3
    """training seeds per strategy, 0 … seeds − 1"""
    strategies: tuple[str, ...] = ("STL", "MTL", "Diminish", "Switch", "Sampled Diminish")
    """strategies to run"""
    views: tuple[View, ...] = VIEWS
    """comparisons to run: same steps, same training FLOPs"""
    budget: float | None = None
    """training FLOPs of every strategy in the equal-budget view; None = budget_share × MTL's FLOPs at equal steps"""
    budget_share: float = 0.44
    """budget as a share of MTL's FLOPs at equal steps; 0.44 = 56 % fewer"""
    stl: SingleTask = field(default_factory=SingleTask)
    """single-task training"""
    mtl: MultiTask = field(default_factory=MultiTask)
    """multi-task training"""
    diminish: Diminishing = field(default_factory=Diminishing)
    """gradual fading with a cut-off"""
    switch: Switching = field(default_factory=Switching)
    """full weight, then a hard stop"""
    sampled: SampledDiminishing = field(default_factory=SampledDiminishing)
    """fading by running less and less often"""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay of matrices"""
    warmup_fraction: float = 0.05
    """share of the steps in which the learning rate rises"""
    clip_norm: float = 1.0
    """limit of the gradient norm; 0 = off"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """mixed precision; "no" = fp32"""
    compile: bool = False
    """torch.compile the model"""
    accumulation: int = 1
    """micro-batches an optimiser step"""
    validations: int = 10
    """validations during a run, evenly spaced, the last at its end"""
    checkpoint_every_seconds: float = 60.0
    """seconds between checkpoints; 0 = only on interruption"""
    checkpoint_every_steps: int = 0
    """optimiser steps between checkpoints; 0 = none by step"""
    threads: int = 0
    """CPU threads of torch; 0 = as torch chooses"""
    data_workers: int = 0
    """threads that make each stream's next batches ahead; 0 = the training loop makes them.

    Any number gives the same bits
    """
    trackers: tuple[str, ...] = ()
    """trackers that accelerate starts, such as tensorboard or wandb"""
    on_leak: Literal["refuse", "drop", "allow"] = "refuse"
    """training images whose content is in the test split: refuse to start, drop them and count, or train on them and
    say so
    """
    data_folder: Path = Path("data")
    """where prepared data are kept"""

    def __post_init__(self) -> None:
        for name in ("steps", "seeds", "validations", "accumulation"):
            if getattr(self, name) < 1:
                raise Mt2stError(f"{name} = {getattr(self, name)!r} must be ≥ 1")
        for name in self.strategies:
            if name not in STRATEGY_KNOBS:
                raise unknown_name("strategy", name, STRATEGY_KNOBS)
        for view in self.views:
            if view not in VIEWS:
                raise unknown_name("view", view, VIEWS)
        if not self.strategies or not self.views:
            raise Mt2stError("strategies and views must not be empty; name at least one of each")
        check_range("budget_share", self.budget_share, 1e-6, 10.0, "it is a share of MTL's FLOPs, for example 0.44")
        if self.budget is not None and not self.budget > 0:
            raise Mt2stError(f"budget = {self.budget!r} must be > 0 training FLOPs, for example 1.9e12")
        if self.threads < 0:
            raise Mt2stError(f"threads = {self.threads} must be ≥ 0; 0 lets torch choose")
        if self.data_workers < 0:
            raise Mt2stError(f"data_workers = {self.data_workers} must be ≥ 0; 0 = no threads beside the training loop")
        for name in self.strategies:  # schedules check their own knobs
            self.strategy(name).schedule()

    def strategy(self, name: str) -> Strategy:
        """The knobs of strategy `name`."""
        if name not in STRATEGY_KNOBS:
            raise unknown_name("strategy", name, STRATEGY_KNOBS)
        found: Strategy = getattr(self, STRATEGY_KNOBS[name])
        return found

    def shared(self) -> dict[str, Any]:
        """The knobs that all runs of a suite have in common and that decide its numbers, as plain values."""
        private = {*STRATEGY_KNOBS.values(), "seeds", "strategies", "views", *_CONDITIONS}
        return {
            key: value for key, value in asdict(self).items() if key not in private and not key.startswith("sweep_")
        }

    def conditions(self) -> dict[str, Any]:
        """The knobs that a resume needs as well and that do not decide the numbers (or do so by the data's content
        hash).
        """
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
            if key in _CONDITIONS
        }


def from_plain(kind: type[Knobs], values: Mapping[str, Any]) -> Knobs:
    """A knobs dataclass from the plain values that a run's config.json holds; what is absent keeps its default.

    Raises:
        Mt2stError: a value that this version does not know.
    """
    hints = get_type_hints(kind)
    arguments = {}
    for name, value in values.items():
        if name not in hints:
            raise unknown_name(f"knob of {kind.__name__} in the run's config.json", name, hints)
        if is_dataclass(hints[name]):
            value = from_plain(hints[name], value)
        elif hints[name] is Path:
            value = Path(value)
        elif isinstance(value, list):
            value = tuple(value)
        arguments[name] = value
    return kind(**arguments)


STRATEGY_KNOBS = {"STL": "stl", "MTL": "mtl", "Diminish": "diminish", "Switch": "switch", "Sampled Diminish": "sampled"}


def training_flops(
    schedules: Mapping[str, Schedule], primary: str, cost: Callable[[tuple[str, ...]], int], total_steps: int, seed: int
) -> int:
    """Training FLOPs of a run of `total_steps` steps.

    Args:
        schedules: auxiliary's name → its schedule.
        primary: the primary task's name.
        cost: FLOPs of a step with these active tasks, primary first.
        seed: decides the coins of sampled schedules.
    """
    total = 0
    for step in range(total_steps):
        active = tuple(
            name
            for name, schedule in schedules.items()
            if weight_at(schedule, step=step, total_steps=total_steps, seed=seed, task=name)
        )
        total += cost((primary, *active))
    return total


def steps_for_budget(
    budget: float, schedules: Mapping[str, Schedule], primary: str, cost: Callable[[tuple[str, ...]], int], seed: int
) -> int:
    """The largest number of steps whose training FLOPs do not exceed `budget`; for a switch at s this is B / (c_primary
    + s·c_auxiliary).

    Raises:
        Mt2stError: the budget does not pay for one step.
    """
    cheapest = cost((primary,))
    low, high = 0, int(budget // cheapest) + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        if training_flops(schedules, primary, cost, middle, seed) <= budget:
            low = middle
        else:
            high = middle
    if low < 1:
        raise Mt2stError(f"budget = {budget:g} training FLOPs is less than one step costs ({cheapest:g}); raise it")
    return low
