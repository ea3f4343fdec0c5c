"""The knobs that every case's suite has. Imports no torch.

A knob decides a run's numbers unless it is declared otherwise: `planned` says which runs there are, `condition` says
how and where they are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.report.views import CLAIMED_BUDGET, EQUAL_BUDGET, EQUAL_STEPS, MULTI_TASK
from benchmarks.strategies import (
    Strategy,
    StrategyKind,
    default_strategies,
    find_strategies,
    find_strategy,
    schedules_of,
    training_of,
)
from mt2st.errors import Mt2stError, check_range, unknown_name
from mt2st.training.config import TrainSettings, deciding

Knobs = TypeVar("Knobs")
View = Literal["equal-steps", "equal-budget"]
VIEWS: tuple[View, ...] = (EQUAL_STEPS, EQUAL_BUDGET)
_DECIDES_NOTHING = {"decides_numbers": False}


def planned(**arguments: Any) -> Any:
    """A knob that says which runs there are; each run holds what follows for it."""
    return field(**arguments, metadata=_DECIDES_NOTHING)


def condition(**arguments: Any) -> Any:
    """A knob that a resume needs and that changes no number (or does so through the data's content hash)."""
    return field(**arguments, metadata={**_DECIDES_NOTHING, "condition": True})


@dataclass(frozen=True)
class SuiteKnobs:
    """What every case's suite has; a case adds its own."""

    AUXILIARIES: ClassVar[tuple[str, ...]] = ()  # those that a case can build

    steps: int = 1000
    """optimiser steps of every strategy in the equal-steps view"""
    seeds: int = planned(default=8)
    """training seeds per strategy, 0 … seeds − 1"""
    until_decided: bool = planned(default=False)
    """look after a quarter and after half of the seeds, and stop where the claim is decided; --seeds auto is this and
    --seeds 16"""
    draw: Literal["fixed", "per-seed"] = "per-seed"
    """labelled subset and validation carve: drawn anew for each seed, or the same for every one; test items never
    change"""
    strategies: tuple[str, ...] = planned(default_factory=default_strategies)
    """strategies to run: names, or classes in files such as my_fade.py:Cosine"""
    settings: tuple[Any, ...] = planned(default=())
    """settings of strategies; a strategy without starts from its defaults, at MTL's learning rate and weight"""
    auxiliaries: tuple[str, ...] = ()
    """auxiliary tasks"""
    views: tuple[View, ...] = planned(default=(EQUAL_BUDGET,))
    """comparisons to run: same steps, same training FLOPs at each of `budgets`"""
    budgets: tuple[float, ...] = planned(default=(CLAIMED_BUDGET,))
    """training FLOPs of every strategy, as shares of full MTL's, which has `steps`; 0.44 = 56 % fewer"""
    full_mtl: bool = planned(default=True)
    """also run MTL, where it is among the strategies, with all its FLOPs: what every budget is compared with"""
    train: TrainSettings = field(default_factory=lambda: TrainSettings(checkpoint_every_seconds=60.0))
    """how to train"""
    validations: int = 10
    """validations during a run, evenly spaced, the last at its end"""
    threads: int = 1
    """CPU threads of a process; another number gives other roundings"""
    processes: int = 1
    """processes that train one run together, each on its share of every batch; a launcher sets it"""
    where: JobKnobs = planned(default_factory=JobKnobs)  # noqa: RUF009
    """where runs are made, and how many at a time"""
    data_workers: int = condition(default=0)
    """threads that make the next batches ahead; 0 = the training loop makes them; any number gives the same bits"""
    trackers: tuple[str, ...] = condition(default=())
    """trackers that accelerate starts, such as tensorboard or wandb"""
    on_leak: Literal["refuse", "drop", "allow"] = condition(default="refuse")
    """training items whose content is in the test split: refuse to start, drop and count them, or train on them"""
    data_folder: Path = condition(default=Path("data"))  # noqa: RUF009
    """where prepared data are kept"""
    init_from: str = condition(default="")
    """folder of a finished run, of this or another case, from whose final weights all runs start; empty = fresh ones"""
    keep: Literal["weights", "checkpoints", "nothing"] = condition(default="weights")
    """what a finished run keeps of its model: the final weights (mt2st.load and all that uses models needs them), the
    checkpoints with the optimiser's state in their place (init_from and embed read these too), or nothing"""

    def __post_init__(self) -> None:
        for name in ("steps", "seeds", "validations", "threads", "processes"):
            if getattr(self, name) < 1:
                raise Mt2stError(f"{name} = {getattr(self, name)!r} must be ≥ 1")
        for view in self.views:
            if view not in VIEWS:
                raise unknown_name("view", view, VIEWS)
        if not self.strategies or not self.views:
            raise Mt2stError("strategies and views must not be empty; name at least one of each")
        for share in self.budgets:
            check_range("budgets", share, 1e-6, 10.0, "each is a share of full MTL's FLOPs, for example 0.44")
        if EQUAL_BUDGET in self.views and not self.budgets:
            raise Mt2stError(f"budgets must not be empty; name one, such as 0.44, or take {EQUAL_BUDGET} off views")
        if len(set(self.budgets)) < len(self.budgets):
            raise Mt2stError(f"budgets = {self.budgets} names a share twice; name each once")
        if self.data_workers < 0:
            raise Mt2stError(f"data_workers = {self.data_workers} must be ≥ 0; 0 = no threads beside the training loop")
        for name, known in (("draw", ("fixed", "per-seed")), ("keep", ("weights", "checkpoints", "nothing"))):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        self._check_auxiliaries()
        for kind in self.kinds():
            self._check_settings(self.strategy(kind.name))

    def _check_auxiliaries(self) -> None:
        if self.AUXILIARIES and not self.auxiliaries:
            known = ", ".join(self.AUXILIARIES)
            raise Mt2stError(f"auxiliaries is empty; name at least one of {known} (STL is a strategy of its own)")
        for name in self.auxiliaries:
            if self.AUXILIARIES and name not in self.AUXILIARIES:
                raise unknown_name("auxiliary", name, self.AUXILIARIES)
            if self.auxiliaries.count(name) > 1:
                raise Mt2stError(f"auxiliaries names {name!r} twice; name each once")

    def _check_settings(self, settings: Any) -> None:
        for each in fields(settings):
            value = getattr(settings, each.name)
            for name in value if isinstance(value, Mapping) else ():
                if name not in self.auxiliaries:
                    raise unknown_name(f"auxiliary in {each.name} of {type(settings).__name__}", name, self.auxiliaries)
        schedules_of(settings, self.auxiliaries or ("any",))  # schedules check their own knobs
        training_of(settings, self.train)

    def kinds(self) -> tuple[StrategyKind, ...]:
        """The strategies to run."""
        return find_strategies(self.strategies)

    def strategy(self, name: str) -> Strategy:
        """The settings of strategy `name`, a name in tables or as in `strategies`."""
        kind = next((kind for kind in self.kinds() if kind.name == name), None) or find_strategy(name)
        found = {type(settings): settings for settings in reversed(self.settings)}
        settings = found.get(kind.kind) or kind.started_from(found.get(find_strategy(MULTI_TASK).kind))
        restricted: Strategy = kind.restricted(settings, self.auxiliaries)
        return restricted

    def with_settings(self, *changed: Any) -> Any:
        """These knobs with other settings of some strategies."""
        others = tuple(old for old in self.settings if type(old) not in {type(new) for new in changed})
        return replace(self, settings=(*others, *changed))

    def draw_seed(self, seed: int) -> int:
        """The seed that draws labels and validation carve of training seed `seed`."""
        return seed if self.draw == "per-seed" else 0

    def shared(self) -> dict[str, Any]:
        """The knobs that all runs of a suite have in common and that decide its numbers, as plain values."""
        return deciding(self)

    def conditions(self) -> dict[str, Any]:
        """The knobs that a resume needs as well and that do not decide the numbers."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.metadata.get("condition")}
        own["train"] = {each.name: getattr(self.train, each.name) for each in fields(self.train)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in own.items()}


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
