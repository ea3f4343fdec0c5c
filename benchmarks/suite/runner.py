"""The runner: every strategy × seed × view of a case, each run a folder that survives, then the report.

A case says how to build an experiment for a seed; strategies, budgets, training, records and the report are here, the
same for all cases. Equal configuration means equal run: what is finished is skipped, what is unfinished goes on.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cases.discovery import load_case
from benchmarks.records.disk_space import require_space
from benchmarks.records.folder import RunFolder
from benchmarks.records.lock import LockedError
from benchmarks.records.machine import (
    environment,
    peak_gpu_bytes,
    peak_resident_bytes,
    reset_peak_gpu,
    reset_peak_resident,
)
from benchmarks.report.spec import ReportSpec
from benchmarks.report.write import report
from benchmarks.strategies import STRATEGY_KNOBS, SuiteKnobs, from_plain
from benchmarks.suite.plan import (
    AUXILIARY,
    PRIMARY,
    Case,
    Experiment,
    Planned,
    Run,
    StepCosts,
    TestResult,
    mixture_of,
    plan_runs,
    run_folder,
)
from mt2st.errors import Mt2stError
from mt2st.training.checkpoint import newest_checkpoint
from mt2st.training.prefetch import Prefetched
from mt2st.training.trainer import TrainConfig, Trainer, TrainingInterrupted

__all__ = [
    "AUXILIARY",
    "PRIMARY",
    "Case",
    "Experiment",
    "Planned",
    "Run",
    "StepCosts",
    "TestResult",
    "execute",
    "mixture_of",
    "plan_runs",
    "resume_run",
    "run_folder",
    "run_suite",
    "train_config",
]

_HELD_WAIT_SECONDS = 2.0  # on one run in other hands, before the next is looked at


def run_suite(
    case: Case,
    knobs: SuiteKnobs,
    spec: ReportSpec,
    *,
    benchmark: str,
    recipe: str,
    results: Path,
    console: Console | None = None,
) -> int:
    """Run what is not finished yet, then write the report.

    Returns:
        0, or 1 if a run failed or the report has a hole (the others went on; the table shows the hole and why).

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
    paths = report(
        benchmark, recipe, results, spec=spec, console=console, suite_hash=plan[0].folder.identity["suite_hash"]
    )
    return 1 if failed or paths.holes else 0


def execute(case: Case, plan: Sequence[Planned], costs: StepCosts, console: Console) -> int:
    """Run what is not finished, with progress and an estimate of the time left; returns how many failed."""
    total = sum(planned.run.flops for planned in plan)
    console.print(
        f"{len(plan)} runs, {total / 1e12:.2f} training TFLOPs; a primary step costs {costs.primary_only / 1e9:.3f} "
        "GFLOPs, "
        f"with all auxiliaries {costs.everything / 1e9:.3f} (auxiliaries' share {costs.auxiliary_share:.1%}, the limit "
        "of any "
        "saving at equal steps)",
        highlight=False,
    )
    results = plan[0].folder.path.parents[2]
    require_space(
        results,
        [planned.folder for planned in plan],
        costs.checkpoint_bytes,
        train_config(plan[0].knobs, plan[0].run).keep_checkpoints,
    )
    surroundings = environment()
    failed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))  # fmt: skip
    started = time.monotonic()
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        bar = progress.add_task("starting", total=total)
        done = spent = 0
        todo = deque(enumerate(plan, start=1))
        held: set[int] = set()  # numbers of runs that were once in another process's hands
        in_vain = 0  # looks in a row that found a run in other hands
        while todo:
            number, planned = todo.popleft()
            run = planned.run
            label = f"[{number}/{len(plan)}] {run.strategy} seed {run.seed}, {run.steps} steps"
            progress.update(bar, description=label)

            def advance(step: int, run: Run = run, base: int = done) -> None:
                progress.update(bar, completed=base + run.flops * step / run.steps)

            # Processes that share a suite share its runs: one waits only when all that is left is in other hands.
            wait_seconds = _HELD_WAIT_SECONDS if in_vain > len(todo) else 0.0
            try:
                line, seconds = _run_one(
                    case, planned, costs, surroundings, advance, wait_seconds, shared=number in held
                )
            except LockedError as other:
                if number not in held:
                    progress.console.print(f"{label}: put off, {other}", highlight=False, markup=False)
                held.add(number)
                in_vain += 1
                todo.append((number, planned))
                continue
            in_vain = 0
            failed += line.startswith("failed")
            spent += run.flops if seconds else 0
            done += run.flops
            progress.update(bar, completed=done)
            left = (time.monotonic() - started) / spent * (total - done) if spent else 0.0
            progress.console.print(
                f"{label} ({', '.join(run.views)}): {line}; about {_minutes(left)} left", highlight=False, markup=False
            )
    return failed


def resume_run(run_dir: Path) -> int:
    """Go on with one run from its last checkpoint (`python -m benchmarks resume RUN_DIR`); 0, or 1 if it failed.

    Raises:
        Mt2stError: the folder is no run, or the code or data have changed so that no planned run is this one any more.
    """
    console = Console()
    identity = RunFolder.existing(run_dir).identity
    benchmark, recipe, strategy = identity["benchmark"], identity["recipe"], identity["strategy"]
    definition = load_case(benchmark)
    conditions = identity.get("conditions", {})
    settings = {**identity["config"]["knobs"], **conditions, STRATEGY_KNOBS[strategy]: identity["config"]["strategy"]}
    kind = type(next(iter(definition.recipes.values())))
    knobs = replace(from_plain(kind, settings), strategies=(strategy,), seeds=identity["seed"] + 1)
    if knobs.threads:
        torch.set_num_threads(knobs.threads)
    case = definition.module.make_case(knobs, console)
    costs = StepCosts(case.build(0))
    results = run_dir.resolve().parents[2]
    for run in plan_runs(knobs, costs):
        folder = run_folder(case, knobs, run, benchmark=benchmark, recipe=recipe, results=results)
        if folder.path == run_dir.resolve():
            folder.identity = identity  # with the suite it belongs to, which a sweep hashes in its own way
            line, _ = _run_one(case, Planned(knobs, run, folder), costs, environment(), lambda step: None, 0.0)
            console.print(f"{run_dir.name}: {line}", highlight=False, markup=False)
            return int(line.startswith("failed"))
    raise Mt2stError(
        f"{run_dir} is no run that this code plans on these data (changed data, code or machine?); repeat the suite's "
        "command"
    )


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


def _run_one(
    case: Case,
    planned: Planned,
    costs: StepCosts,
    surroundings: Mapping[str, Any],
    on_step: Callable[[int], None],
    wait_seconds: float,
    *,
    shared: bool = False,
) -> tuple[str, float]:
    """Run or skip; returns a line for the terminal and the seconds it took (0 when skipped).

    Args:
        wait_seconds: how long to wait for a run that another process holds.
        shared: another process was at this run while this one was; what failed there is not tried again here.

    Raises:
        LockedError: another process still holds the run.
    """
    folder = planned.folder
    if folder.state() == "finished":
        return ("finished by another process meanwhile" if shared else "finished before") + ", skipped", 0.0
    started = time.monotonic()
    try:
        with folder.lock(wait_seconds=wait_seconds):
            for damage in folder.repair():
                folder.write_log(f"repaired: {damage}\n")
            if folder.state() == "finished":
                return "finished by another process meanwhile, skipped", 0.0
            if shared and folder.status() == "failed":
                return f"failed in another process; see {folder.log}", 0.0
            folder.begin()
            return _recorded(case, planned, costs, surroundings, on_step), time.monotonic() - started
    except LockedError:
        raise
    except (Mt2stError, OSError) as error:  # the folder itself cannot be used; the other runs can
        return f"failed: {_reason(error)}", time.monotonic() - started


def _recorded(
    case: Case, planned: Planned, costs: StepCosts, surroundings: Mapping[str, Any], on_step: Callable[[int], None]
) -> str:
    """Train and test a run whose folder is locked, and record how it ended; returns a line for the terminal."""
    folder = planned.folder
    record: dict[str, Any] = {
        **surroundings,
        "views": list(planned.run.views),
        "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "data": dict(case.data),
        "auxiliary_share_of_mtl_flops": costs.auxiliary_share,
    }
    try:
        return _train_and_test(case, planned, record, on_step)
    except KeyboardInterrupt as stop:
        why = str(stop) if isinstance(stop, TrainingInterrupted) else "interrupted outside training"
        with contextlib.suppress(OSError):  # without a record the run counts as unfinished, which it is
            folder.interrupt(record, why)
        raise
    except Exception as error:  # noqa: BLE001 - one failed run must not sink the suite; the traceback is kept in the run's log
        trace = traceback.format_exc()
        why = str(error) if isinstance(error, Mt2stError) else f"{_reason(error)} (traceback in {folder.log})"
        try:
            folder.write_log(trace)
            folder.fail(record, why)
        except OSError as second:
            why += f"; nor could that be recorded: {_reason(second)}"
        return f"failed: {' '.join(why.split())}"


def _reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or 'no file named'}; check space, permissions and the path"
    return " ".join((str(error) if isinstance(error, Mt2stError) else f"{type(error).__name__}: {error}").split())


def _train_and_test(case: Case, planned: Planned, record: dict[str, Any], on_step: Callable[[int], None]) -> str:
    knobs, run, folder = planned.knobs, planned.run, planned.folder
    reset_peak_resident()
    reset_peak_gpu()
    experiment = case.build(run.seed)
    strategy = knobs.strategy(run.strategy)
    mixture = mixture_of(experiment, strategy.schedule())
    config = train_config(knobs, run)

    def log(line: Mapping[str, Any]) -> None:
        if (
            line["event"] == "warning"
        ):  # a damaged checkpoint: comes before the resume, which would cut it off the metrics
            folder.write_log(f"{line['message']}\n")
            return
        if line["event"] == "resume":
            folder.truncate_metrics(int(line["step"]))
        folder.append_metrics(**line)

    if newest_checkpoint(folder.checkpoints) is None:
        folder.truncate_metrics(0)  # of an attempt that ended before its first checkpoint

    workers = knobs.data_workers
    trainer = Trainer(
        experiment.encoder,
        mixture,
        {name: Prefetched(stream, workers) if workers else stream for name, stream in experiment.streams.items()},
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
        "model": {
            "encoder_parameters": parameters,
            "parameters": sum(parameter.numel() for parameter in trainer.parameters()),
        },
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
    return (
        {name: value for name, value in curve[-1].items() if name not in ("step", "flops", "seconds")} if curve else {}
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
