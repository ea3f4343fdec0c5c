"""The runner: every strategy × seed × view of a case, each run a folder that survives, then the report.

A case says how to build an experiment for a seed; strategies, budgets, training, records and the report are here, the same
for all cases. Equal configuration means equal run: what is finished is skipped, what is unfinished goes on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cli_cases import load_case
from benchmarks.hardware import environment, peak_gpu_bytes, peak_resident_bytes, reset_peak_gpu, reset_peak_resident
from benchmarks.record import RunFolder
from benchmarks.report import report
from benchmarks.report_spec import ReportSpec
from benchmarks.strategies import EQUAL_BUDGET, EQUAL_STEPS, STRATEGY_KNOBS, SuiteKnobs, from_plain, steps_for_budget, training_flops
from mt2st.errors import Mt2stError
from mt2st.flops import FlopCounter
from mt2st.mixture import MT2ST, Task
from mt2st.objectives import Objective
from mt2st.schedules import Constant, Schedule
from mt2st.trainer import Stream, TrainConfig, Trainer, TrainingInterrupted

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


def run_suite(
    case: Case, knobs: SuiteKnobs, spec: ReportSpec, *, benchmark: str, recipe: str, results: Path, console: Console | None = None
) -> int:
    """Run what is not finished yet, then write the report.

    Returns:
        0, or 1 if a run failed (the others went on; the table shows the hole and why).

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the running run was checkpointed and recorded as interrupted.
    """
    console = console or Console()
    if knobs.threads:
        torch.set_num_threads(knobs.threads)
    costs = StepCosts(case.build(0))
    plan = [
        Planned(knobs, run, run_folder(case, knobs, run, benchmark=benchmark, recipe=recipe, results=results))
        for run in plan_runs(knobs, costs)
    ]
    failed = execute(case, plan, costs, console)
    report(benchmark, recipe, results, spec=spec, console=console, suite_hash=plan[0].folder.identity["suite_hash"])
    return 1 if failed else 0


@dataclass(frozen=True)
class Planned:
    """A run with the knobs it runs under and its folder."""

    knobs: SuiteKnobs
    run: Run
    folder: RunFolder


def execute(case: Case, plan: Sequence[Planned], costs: StepCosts, console: Console) -> int:
    """Run what is not finished, with progress and an estimate of the time left; returns how many failed."""
    total = sum(planned.run.flops for planned in plan)
    console.print(
        f"{len(plan)} runs, {total / 1e12:.2f} training TFLOPs; a primary step costs {costs.primary_only / 1e9:.3f} GFLOPs, "
        f"with all auxiliaries {costs.everything / 1e9:.3f} (auxiliaries' share {costs.auxiliary_share:.1%}, the limit of any "
        "saving at equal steps)",
        highlight=False,
    )
    surroundings = environment()
    failed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))  # fmt: skip
    started = time.monotonic()
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        bar = progress.add_task("starting", total=total)
        done = spent = 0
        for number, planned in enumerate(plan, start=1):
            run = planned.run
            label = f"[{number}/{len(plan)}] {run.strategy} seed {run.seed}, {run.steps} steps"
            progress.update(bar, description=label)

            def advance(step: int, run: Run = run, base: int = done) -> None:
                progress.update(bar, completed=base + run.flops * step / run.steps)

            line, seconds = _run_one(case, planned, costs, surroundings, advance)
            failed += line.startswith("failed")
            spent += run.flops if seconds else 0
            done += run.flops
            progress.update(bar, completed=done)
            left = (time.monotonic() - started) / spent * (total - done) if spent else 0.0
            progress.console.print(f"{label} ({', '.join(run.views)}): {line}; about {_minutes(left)} left", highlight=False, markup=False)
    return failed


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
                views.setdefault(steps_for_budget(budget, schedules, costs.primary, cost, seed), []).append(EQUAL_BUDGET)
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
    suite = {"knobs": {name: value for name, value in knobs.shared().items() if name not in varied}, "data": dict(case.data)}
    return RunFolder.of(
        results, benchmark, recipe, strategy=run.strategy, view=run.views[0], seed=run.seed, config=config, suite=suite
    )


def resume_run(run_dir: Path) -> int:
    """Go on with one run from its last checkpoint (`python -m benchmarks resume RUN_DIR`); 0, or 1 if it failed.

    Raises:
        Mt2stError: the folder is no run, or the code or data have changed so that no planned run is this one any more.
    """
    console = Console()
    identity = RunFolder.existing(run_dir).identity
    benchmark, recipe, strategy = identity["benchmark"], identity["recipe"], identity["strategy"]
    definition = load_case(benchmark)
    settings = {**identity["config"]["knobs"], STRATEGY_KNOBS[strategy]: identity["config"]["strategy"]}
    kind = type(next(iter(definition.recipes.values())))
    knobs = replace(from_plain(kind, settings), strategies=(strategy,), seeds=identity["seed"] + 1)
    case = definition.module.make_case(knobs, console)
    costs = StepCosts(case.build(0))
    results = run_dir.resolve().parents[2]
    for run in plan_runs(knobs, costs):
        folder = run_folder(case, knobs, run, benchmark=benchmark, recipe=recipe, results=results)
        if folder.path == run_dir.resolve():
            line, _ = _run_one(case, Planned(knobs, run, folder), costs, environment(), lambda step: None)
            console.print(f"{run_dir.name}: {line}", highlight=False, markup=False)
            return int(line.startswith("failed"))
    raise Mt2stError(f"{run_dir} is no run that this code plans on these data (changed data, code or machine?); repeat the suite's command")


def train_config(knobs: SuiteKnobs, run: Run) -> TrainConfig:
    """How to train a planned run."""
    return TrainConfig(
        total_steps=run.steps,
        seed=run.seed,
        learning_rate=knobs.strategy(run.strategy).learning_rate,
        weight_decay=knobs.weight_decay,
        warmup_fraction=knobs.warmup_fraction,
        clip_norm=knobs.clip_norm,
        precision=knobs.precision,
        accumulation=knobs.accumulation,
        compile=knobs.compile,
        evaluate_every_steps=max(1, -(-run.steps // knobs.validations)),
        checkpoint_every_steps=knobs.checkpoint_every_steps,
        checkpoint_every_seconds=knobs.checkpoint_every_seconds,
    )


def mixture_of(experiment: Experiment, schedule: Schedule) -> MT2ST:
    """The primary and its auxiliaries, all under one schedule."""
    return MT2ST(
        Task(experiment.primary, Constant(), PRIMARY), [Task(objective, schedule, AUXILIARY) for objective in experiment.auxiliaries]
    )


def _run_one(
    case: Case, planned: Planned, costs: StepCosts, surroundings: Mapping[str, Any], on_step: Callable[[int], None]
) -> tuple[str, float]:
    """Run or skip; returns a line for the terminal and the seconds it took (0 when skipped)."""
    folder, run = planned.folder, planned.run
    if folder.state() == "finished":
        return "finished before, skipped", 0.0
    with folder.lock(wait_seconds=24 * 3600.0):
        for damage in folder.repair():
            folder.log.open("a").write(f"repaired: {damage}\n")
        if folder.state() == "finished":
            return "finished by another process meanwhile, skipped", 0.0
        folder.begin()
        record: dict[str, Any] = {
            **surroundings,
            "views": list(run.views),
            "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "data": dict(case.data),
            "auxiliary_share_of_mtl_flops": costs.auxiliary_share,
        }
        started = time.monotonic()
        try:
            summary = _train_and_test(case, planned, record, on_step)
        except TrainingInterrupted as stop:
            folder.interrupt(record, str(stop))
            raise
        except KeyboardInterrupt:
            folder.interrupt(record, "interrupted outside training")
            raise
        except Exception as error:  # noqa: BLE001 - one failed run must not sink the suite; the traceback is kept in the run's log
            with folder.log.open("a", encoding="utf-8") as log:
                log.write(traceback.format_exc())
            why = str(error) if isinstance(error, Mt2stError) else f"{type(error).__name__}: {error} (traceback in {folder.log})"
            folder.fail(record, why)
            return f"failed: {why}", time.monotonic() - started
        return summary, time.monotonic() - started


def _train_and_test(case: Case, planned: Planned, record: dict[str, Any], on_step: Callable[[int], None]) -> str:
    knobs, run, folder = planned.knobs, planned.run, planned.folder
    reset_peak_resident()
    reset_peak_gpu()
    experiment = case.build(run.seed)
    strategy = knobs.strategy(run.strategy)
    mixture = mixture_of(experiment, strategy.schedule())
    config = train_config(knobs, run)

    def log(line: Mapping[str, Any]) -> None:
        if line["event"] == "resume":
            folder.truncate_metrics(int(line["step"]))
        folder.append_metrics(**line)

    trainer = Trainer(
        experiment.encoder,
        mixture,
        experiment.streams,
        config,
        folder=folder.checkpoints,
        validate=experiment.validate,
        log=log,
        on_step=on_step,
        identity=folder.identity["config"],
        trackers=knobs.trackers,
    )
    result = trainer.fit()
    if trainer.saved_step != result.steps:
        trainer.save()
    started = time.perf_counter()
    test = experiment.test()
    test_seconds = time.perf_counter() - started
    experiment.save(folder.path)
    ledger = result.ledger
    parameters = sum(parameter.numel() for parameter in experiment.encoder.parameters())
    record |= {
        "model": {"encoder_parameters": parameters, "parameters": sum(parameter.numel() for parameter in trainer.parameters())},
        "steps": result.steps,
        "phases_seconds": {"train": result.train_seconds, "validate": result.evaluate_seconds, "test": test_seconds},
        "flops": {"total": ledger.total, "by_task": ledger.by_task(), "by_kind": ledger.by_kind()},
        "peak_memory_bytes": peak_resident_bytes(),
        "gpu_peak_memory_bytes": peak_gpu_bytes(),
        "metrics": {"validation": _last_metrics(result.curve), "test": test.metrics},
        "floors": test.floors,
        "group_names": test.group_names,
        "curve": result.curve,
    }
    folder.finish(record, test.items)
    name, value = next(iter(test.metrics.items()))
    return f"{name} {value:.4f}, {ledger.total / 1e12:.3f} TFLOPs, {result.train_seconds:.0f} s"


def _last_metrics(curve: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {name: value for name, value in curve[-1].items() if name not in ("step", "flops", "seconds")} if curve else {}


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
