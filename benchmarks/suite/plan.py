"""What a suite plans: the experiment of a case, the FLOPs of its steps, and the runs that follow, each with its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.records.disk_space import checkpoint_bytes
from benchmarks.records.folder import RunFolder
from benchmarks.strategies import EQUAL_BUDGET, EQUAL_STEPS, SuiteKnobs, steps_for_budget, training_flops
from mt2st.flops import FlopCounter
from mt2st.mixture import MT2ST, Task
from mt2st.objectives import Objective
from mt2st.schedules import Constant, Schedule
from mt2st.training.trainer import Stream

PRIMARY, AUXILIARY = "primary", "auxiliary"


@dataclass
class TestResult:
    """What a case measures on the test split, once, after training.

    Attributes:
        metrics: metric id → value.
        items: name → per-item array [n_items].
        group_names: item array of codes → names of the codes.
        floors: floor's name → metric id → value; what a model must beat.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    metrics: dict[str, float]
    items: dict[str, np.ndarray]
    group_names: dict[str, list[str]] = field(default_factory=dict)
    floors: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Experiment:
    """A freshly built model with its tasks and data, for one seed.

    Attributes:
        encoder: an `nn.Module` with `features(batch)`.
        primary: the primary objective; draws from stream "primary".
        auxiliaries: the auxiliary objectives; draw from stream "auxiliary", one batch for all of them.
        streams: "primary" and "auxiliary".
        validate: metrics on the validation split.
        test: metrics on the test split; called once, after training.
        save: writes what belongs to the run besides its record (tokenizer, embeddings, pictures) into the run's folder.
    """

    encoder: Any
    primary: Objective
    auxiliaries: Sequence[Objective]
    streams: Mapping[str, Stream]
    validate: Callable[[], Mapping[str, float]]
    test: Callable[[], TestResult]
    save: Callable[[Path], None] = lambda folder: None


class Case(Protocol):
    """A benchmark case with its data prepared."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Name, revision and content hash of the data, and what was counted while preparing them."""

    def build(self, seed: int) -> Experiment:
        """A new experiment; the same seed gives the same initial weights and data order."""


@dataclass(frozen=True)
class Run:
    """One planned run."""

    strategy: str
    seed: int
    steps: int
    views: tuple[str, ...]
    flops: int


@dataclass(frozen=True)
class Planned:
    """A run with the knobs it runs under and its folder."""

    knobs: SuiteKnobs
    run: Run
    folder: RunFolder


class StepCosts:
    """FLOPs of one step by active set, measured on an experiment that is thrown away."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self.primary = experiment.primary.name
        self.auxiliaries = tuple(objective.name for objective in experiment.auxiliaries)
        self._schedules: dict[str, Schedule] = {name: Constant() for name in self.auxiliaries}
        self._mixture = mixture_of(experiment, Constant())
        self._mixture.to(_device())
        experiment.encoder.to(_device())
        self._known: dict[tuple[str, ...], int] = {}
        self.checkpoint_bytes = checkpoint_bytes([experiment.encoder, self._mixture])

    def __call__(self, active: tuple[str, ...]) -> int:
        """FLOPs, forward and backward, of a step with these active tasks, primary first."""
        if active not in self._known:
            weights = dict.fromkeys(active, 1.0)
            streams = self._experiment.streams
            batches = {
                stream: {name: tensor.to(_device()) for name, tensor in streams[stream].batch(0).items()}
                for stream in self._mixture.streams(weights)
            }
            with FlopCounter() as counter:
                losses = self._mixture(self._experiment.encoder.features, batches, weights)
                torch.stack(list(losses.values())).sum().backward()
            self._known[active] = counter.total
        return self._known[active]

    @property
    def primary_only(self) -> int:
        return self((self.primary,))

    @property
    def everything(self) -> int:
        return self((self.primary, *self.auxiliaries))

    @property
    def auxiliary_share(self) -> float:
        """Share of MTL's FLOPs that the auxiliaries add: the limit of any saving at equal steps."""
        return 1 - self.primary_only / self.everything


def plan_runs(knobs: SuiteKnobs, costs: StepCosts) -> list[Run]:
    """The runs of a suite, seed by seed; one that counts for both views is planned once."""
    everything = costs.everything * knobs.steps * knobs.accumulation
    budget = knobs.budget if knobs.budget is not None else knobs.budget_share * everything
    runs = []
    for seed in range(knobs.seeds):
        for name in knobs.strategies:
            schedule = knobs.strategy(name).schedule()
            schedules = dict.fromkeys(costs.auxiliaries, schedule)

            def cost(active: tuple[str, ...]) -> int:
                return costs(active) * knobs.accumulation

            views: dict[int, list[str]] = {}
            if EQUAL_STEPS in knobs.views:
                views.setdefault(knobs.steps, []).append(EQUAL_STEPS)
            if EQUAL_BUDGET in knobs.views:
                views.setdefault(steps_for_budget(budget, schedules, costs.primary, cost, seed), []).append(
                    EQUAL_BUDGET
                )
            for steps, names in views.items():
                flops = training_flops(schedules, costs.primary, cost, steps, seed)
                runs.append(Run(name, seed, steps, tuple(names), flops))
    return runs


def run_folder(
    case: Case, knobs: SuiteKnobs, run: Run, *, benchmark: str, recipe: str, results: Path, varied: tuple[str, ...] = ()
) -> RunFolder:
    """The folder of a planned run: equal configuration and data, equal folder.

    `varied` names the shared knobs that differ between the runs of one suite (a sweep's budget).
    """
    config = {
        "knobs": knobs.shared(),
        "data": dict(case.data),
        "strategy": asdict(knobs.strategy(run.strategy)),  # type: ignore[call-overload]
        "steps": run.steps,
    }
    suite = {
        "knobs": {name: value for name, value in knobs.shared().items() if name not in varied},
        "data": dict(case.data),
    }
    return RunFolder.of(
        results, benchmark, recipe, strategy=run.strategy, view=run.views[0], seed=run.seed, config=config, suite=suite,
        conditions=knobs.conditions(),
    )  # fmt: skip


def mixture_of(experiment: Experiment, schedule: Schedule) -> MT2ST:
    """The primary and its auxiliaries, all under one schedule."""
    return MT2ST(
        Task(experiment.primary, Constant(), PRIMARY),
        [Task(objective, schedule, AUXILIARY) for objective in experiment.auxiliaries],
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
