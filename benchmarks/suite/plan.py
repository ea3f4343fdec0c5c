"""What a suite plans: the runs of every strategy, seed and view, their steps and FLOPs, and the folder of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, CaseCard, load_card
from benchmarks.cases.shared.suite_knobs import EQUAL_BUDGET, EQUAL_STEPS, SuiteKnobs, from_plain
from benchmarks.records.folder import RunFolder
from benchmarks.strategies import find_strategy
from benchmarks.suite.costs import StepCosts, schedules_of
from mt2st.errors import Mt2stError
from mt2st.schedules import Schedule, weight_at
from mt2st.training.config import TrainConfig, deciding


@dataclass(frozen=True)
class Run:
    """One planned run.

    Attributes:
        flops: forecast of its training FLOPs.
        auxiliary_share: the auxiliaries' share of MTL's FLOPs, the limit of any saving at equal steps.
    """

    strategy: str
    seed: int
    steps: int
    views: tuple[str, ...]
    flops: int
    auxiliary_share: float

    @property
    def label(self) -> str:
        """The run in a few words."""
        return f"{self.strategy} seed {self.seed}, {self.steps} steps"


@dataclass(frozen=True)
class Planned:
    """A run with the knobs it runs under and its folder."""

    knobs: SuiteKnobs
    run: Run
    folder: RunFolder


class SuiteCosts:
    """Step costs by seed. Seeds with one labelled subset share one measurement: their batches have the same shapes."""

    def __init__(self, case: Case, knobs: SuiteKnobs) -> None:
        self._case, self._knobs = case, knobs
        self._known: dict[int, StepCosts] = {}

    def of(self, seed: int) -> StepCosts:
        """The costs of a step of seed `seed`."""
        draw = self._knobs.draw_seed(seed)
        if draw not in self._known:
            self.close()
            self._known[draw] = StepCosts(lambda: self._case.build(draw))
        return self._known[draw]

    def close(self) -> None:
        """Let go of the models; see `StepCosts.close`."""
        for costs in self._known.values():
            costs.close()


def plan_runs(knobs: SuiteKnobs, costs: SuiteCosts) -> list[Run]:
    """The runs of a suite, seed by seed; one that counts for both views is planned once."""
    runs = []
    for seed in range(knobs.seeds):
        step = costs.of(seed)

        def cost(active: tuple[str, ...], step: StepCosts = step) -> int:
            return step(active) * knobs.train.accumulation

        everything = cost((step.primary, *step.auxiliaries)) * knobs.steps
        budget = knobs.budget if knobs.budget is not None else knobs.budget_share * everything
        for kind in knobs.kinds():
            schedules = schedules_of(knobs.strategy(kind.name), step.auxiliaries)
            views: dict[int, list[str]] = {}
            if EQUAL_STEPS in knobs.views:
                views.setdefault(knobs.steps, []).append(EQUAL_STEPS)
            if EQUAL_BUDGET in knobs.views:
                steps = steps_for_budget(budget, schedules, step.primary, cost, seed)
                views.setdefault(steps, []).append(EQUAL_BUDGET)
            for steps, names in views.items():
                flops = training_flops(schedules, step.primary, cost, steps, seed)
                runs.append(Run(kind.name, seed, steps, tuple(names), flops, step.auxiliary_share))
    return runs


def swept(knobs: SuiteKnobs) -> list[Any]:
    """The knobs of a sweep's parts: every setting of every strategy at every budget."""
    parts = []
    for share in knobs.sweep_budgets:
        for name, kind in zip(knobs.strategies, knobs.kinds(), strict=True):
            variants = kind.variants(knobs.strategy(kind.name))
            if knobs.sweep_middle:
                variants = (variants[len(variants) // 2],)
            for settings in variants:
                part = replace(knobs, strategies=(name,), views=(EQUAL_BUDGET,), budget_share=share)
                parts.append(part.with_settings(settings))
    return parts


def training_flops(
    schedules: Mapping[str, Schedule],
    primary: str,
    cost: Callable[[tuple[str, ...]], int],
    total_steps: int,
    seed: int,
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
    """The largest number of steps whose training FLOPs do not exceed `budget`.

    For a switch of one auxiliary at s this is B / (c_primary + s·c_auxiliary).

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


def run_folder(
    case: Case,
    knobs: SuiteKnobs,
    run: Run,
    *,
    benchmark: str,
    recipe: str,
    results: Path,
    varied: tuple[str, ...] = (),
) -> RunFolder:
    """The folder of a planned run: equal configuration and data, equal folder.

    `varied` names the shared knobs that differ between the runs of one suite (a sweep's budget).
    """
    kind = next(kind for kind in knobs.kinds() if kind.name == run.strategy)
    config = {
        "knobs": knobs.shared(),
        "data": dict(case.data),
        "strategy": deciding(knobs.strategy(run.strategy)),
        "steps": run.steps,
    }
    if kind.place:  # somebody else's code is part of what decides the numbers
        config["strategy_code"] = kind.code_hash
    suite = {
        "knobs": {name: value for name, value in knobs.shared().items() if name not in varied},
        "data": dict(case.data),
    }
    return RunFolder.of(
        results,
        benchmark,
        recipe,
        strategy=run.strategy,
        view=run.views[0],
        seed=run.seed,
        config=config,
        suite=suite,
        conditions={**knobs.conditions(), "strategy_place": kind.place or run.strategy, "run": asdict(run)},
    )


def begun_run(run_dir: Path) -> tuple[CaseCard, SuiteKnobs, Run]:
    """The case, the knobs and the plan of a run that was begun before, from its config.json.

    Raises:
        Mt2stError: the folder is no run, an older version wrote it, or its strategy's file has changed.
    """
    identity = RunFolder.existing(run_dir).identity
    card = load_card(identity["benchmark"])
    conditions = dict(identity.get("conditions", {}))
    place, run = conditions.pop("strategy_place", ""), conditions.pop("run", None)
    if not place or run is None:
        raise Mt2stError(
            f"{run_dir} was begun by version 0.1; such runs can be reported, not resumed; repeat the suite's command"
        )
    kind = find_strategy(place)
    config = identity["config"]
    if config.get("strategy_code", "") != kind.code_hash:
        raise Mt2stError(f"{run_dir}: strategy {place} has changed since the run began; repeat the suite's command")
    settings = {**config["knobs"], **conditions}
    settings["settings"] = (from_plain(kind.kind, config["strategy"]),)
    knobs_kind = type(next(iter(card.recipes.values())))
    knobs = from_plain(knobs_kind, {**settings, "strategies": (place,), "seeds": identity["seed"] + 1})
    return card, knobs, from_plain(Run, run)


def begun_folder(case: Case, knobs: SuiteKnobs, run: Run, run_dir: Path) -> Planned:
    """The run of `begun_run`, with its folder, once the case's data are open.

    Raises:
        Mt2stError: on these data this code makes another run of it.
    """
    begun = RunFolder.existing(run_dir)
    identity = begun.identity
    results = run_dir.resolve().parents[2]
    here = run_folder(case, knobs, run, benchmark=identity["benchmark"], recipe=identity["recipe"], results=results)
    if here.path != run_dir.resolve():
        raise Mt2stError(
            f"{run_dir} is no run that this code plans on these data (changed data or code?); repeat the suite's "
            "command"
        )
    return Planned(knobs, run, RunFolder(here.path, identity))  # its own suite, which a sweep hashes in its own way


def train_config(knobs: SuiteKnobs, run: Run) -> TrainConfig:
    """How to train a planned run."""
    return TrainConfig(
        **vars(knobs.train),
        total_steps=run.steps,
        seed=run.seed,
        learning_rate=knobs.strategy(run.strategy).learning_rate,
        evaluate_every_steps=max(1, -(-run.steps // knobs.validations)),
    )
