"""A planned run: its folder, how it is trained, and how it is found again from its folder alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.cases import Case, CaseCard, load_card
from benchmarks.cases.shared.suite_knobs import SuiteKnobs, from_plain
from benchmarks.records.folder import RunFolder
from benchmarks.records.weights import source_run
from benchmarks.strategies import find_strategy, training_of
from benchmarks.suite import ranks
from mt2st.errors import Mt2stError
from mt2st.training.config import TrainConfig, deciding


@dataclass(frozen=True)
class Run:
    """One planned run.

    Attributes:
        flops: forecast of its training FLOPs.
        auxiliary_share: the auxiliaries' share of MTL's FLOPs, the limit of any saving at equal steps.
        budget: training FLOPs that end the run, in place of steps, which nobody knows beforehand: its schedules listen.
            `steps` is then what the budget pays for if no auxiliary ever stops. 0 = the steps end it.
        looks: numbers of seeds at which the suite looks at its intervals, to add seeds or not; () = it does not.
        tested: whether the test split is read in the end. A trial of `tune` is not tested, and leaves its record alone.
    """

    strategy: str
    seed: int
    steps: int
    views: tuple[str, ...]
    flops: int
    auxiliary_share: float
    budget: int = 0
    tested: bool = True
    looks: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The run in a few words."""
        length = f"a budget of {self.budget / 1e12:.3f} TFLOPs" if self.budget else f"{self.steps} steps"
        return f"{self.strategy} seed {self.seed}, {length}"


@dataclass(frozen=True)
class Planned:
    """A run with the knobs it runs under and its folder."""

    knobs: SuiteKnobs
    run: Run
    folder: RunFolder


def open_case(card: CaseCard, knobs: SuiteKnobs, console: Console) -> Case:
    """The case with its data prepared, once for all processes."""
    with ranks.first_goes_ahead():
        return card.open(knobs, console)


def run_folder(
    case: Case,
    knobs: SuiteKnobs,
    run: Run,
    *,
    benchmark: str,
    recipe: str,
    results: Path,
) -> RunFolder:
    """The folder of a planned run: equal configuration and data, equal folder."""
    kind = next(kind for kind in knobs.kinds() if kind.name == run.strategy)
    config = {
        "knobs": knobs.shared(),
        "data": dict(case.data),
        "strategy": deciding(knobs.strategy(run.strategy)),
        "steps": run.steps,
    }
    if run.budget:
        config["budget"] = run.budget
    if kind.place:  # somebody else's code is part of what decides the numbers
        config["strategy_code"] = kind.code_hash
    suite = {"knobs": knobs.shared(), "data": dict(case.data)}
    if knobs.init_from:  # the weights themselves, wherever they lie
        config["init_from"] = suite["init_from"] = source_run(knobs.init_from).identity
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
    return Planned(knobs, run, RunFolder(here.path, identity))


def train_config(knobs: SuiteKnobs, run: Run) -> TrainConfig:
    """How to train a planned run."""
    strategy = knobs.strategy(run.strategy)
    return TrainConfig(
        **vars(training_of(strategy, knobs.train)),
        total_steps=0 if run.budget else run.steps,
        total_flops=run.budget,
        seed=run.seed,
        learning_rate=strategy.learning_rate,
        evaluate_every_steps=max(1, -(-run.steps // knobs.validations)),
    )
