"""The runner: every strategy × seed × view of a case, each run a folder that survives, then the report.

A case says how to build an experiment for a seed; strategies, budgets, training, records and the report are the same
for all cases. Equal configuration means equal run: what is finished is skipped, what is unfinished goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cases import Case, CaseCard, load_card
from benchmarks.cases.shared.suite_knobs import SuiteKnobs, from_plain
from benchmarks.records.disk_space import require_space
from benchmarks.records.folder import RunFolder
from benchmarks.records.lock import LockedError
from benchmarks.records.machine import environment
from benchmarks.report.spec import ReportSpec
from benchmarks.report.sweep import write_sweep
from benchmarks.report.write import report
from benchmarks.strategies import find_strategy, strategy_names
from benchmarks.suite.plan import Planned, Run, SuiteCosts, plan_runs, run_folder
from benchmarks.suite.sweep import swept
from benchmarks.suite.train import run_one
from mt2st.errors import Mt2stError

_HELD_WAIT_SECONDS = 2.0  # on one run in other hands, before the next is looked at


def open_case(card: CaseCard, knobs: SuiteKnobs, console: Console) -> Case:
    """The case with its data prepared; torch computes with the knobs' threads from here on."""
    if knobs.threads:
        torch.set_num_threads(knobs.threads)
    return card.open(knobs, console)


def run_case(card: CaseCard, knobs: SuiteKnobs, recipe: str, results: Path, console: Console | None = None) -> int:
    """Run a case's suite, or its sweep; 0, or 1 if a run failed or the report has a hole."""
    console = console or Console()
    case = open_case(card, knobs, console)
    return run_suite(case, knobs, card.spec, benchmark=card.name, recipe=recipe, results=results, console=console)


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
    """Run what is not finished yet, then write the report: a sweep where `knobs.sweep_budgets` names budgets.

    Returns:
        0, or 1 if a run failed or the report has a hole (the others went on; the table shows the hole and why).

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the running run was checkpointed and recorded as interrupted.
    """
    console = console or Console()
    costs = SuiteCosts(case, knobs)
    suites = swept(knobs) if knobs.sweep_budgets else [knobs]
    varied = ("budget_share",) if knobs.sweep_budgets else ()
    plan = [
        Planned(
            each,
            run,
            run_folder(case, each, run, benchmark=benchmark, recipe=recipe, results=results, varied=varied),
        )
        for each in suites
        for run in plan_runs(each, costs)
    ]
    failed = execute(case, plan, costs, console)
    suite_hash = plan[0].folder.identity["suite_hash"]
    if knobs.sweep_budgets:
        write_sweep(
            *(results, benchmark, recipe),
            suite_hash=suite_hash,
            runs={planned.folder.name for planned in plan},
            spec=spec,
            known=strategy_names(),
            console=console,
        )
        return 1 if failed else 0
    paths = report(
        benchmark, recipe, results, spec=spec, known=strategy_names(), console=console, suite_hash=suite_hash
    )
    return 1 if failed or paths.holes else 0


def execute(case: Case, plan: Sequence[Planned], costs: SuiteCosts, console: Console) -> int:
    """Run what is not finished, with progress and an estimate of the time left; returns how many failed."""
    total = sum(planned.run.flops for planned in plan)
    first = costs.of(0)
    share = first.auxiliary_share
    console.print(
        f"{len(plan)} runs, {total / 1e12:.2f} training TFLOPs; a primary step costs {first.primary_only / 1e9:.3f} "
        f"GFLOPs, with all auxiliaries {first.everything / 1e9:.3f} (auxiliaries' share {share:.1%}, the limit of any "
        "saving at equal steps)",
        highlight=False,
    )
    costs.close()
    folders = [planned.folder for planned in plan]
    require_space(folders[0].path.parents[2], folders, first.checkpoint_bytes, plan[0].knobs.train.keep_checkpoints)
    surroundings = environment()
    failed = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
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
                outcome = run_one(case, planned, share, surroundings, advance, wait_seconds, shared=number in held)
            except LockedError as other:
                if number not in held:
                    progress.console.print(f"{label}: put off, {other}", highlight=False, markup=False)
                held.add(number)
                in_vain += 1
                todo.append((number, planned))
                continue
            in_vain = 0
            failed += outcome.kind == "failed"
            spent += run.flops if outcome.seconds else 0
            done += run.flops
            progress.update(bar, completed=done)
            left = (time.monotonic() - started) / spent * (total - done) if spent else 0.0
            progress.console.print(
                f"{label} ({', '.join(run.views)}): {outcome.text}; about {_minutes(left)} left",
                highlight=False,
                markup=False,
            )
    return failed


def resume_run(run_dir: Path) -> int:
    """Go on with one run from its last checkpoint (`python -m benchmarks resume RUN_DIR`); 0, or 1 if it failed.

    Raises:
        Mt2stError: the folder is no run, an older version wrote it, or the code or data have changed so that no planned
            run is this one any more.
    """
    console = Console()
    identity = RunFolder.existing(run_dir).identity
    benchmark, recipe = identity["benchmark"], identity["recipe"]
    card = load_card(benchmark)
    knobs = _knobs_of(card, run_dir, identity)
    case = open_case(card, knobs, console)
    costs = SuiteCosts(case, knobs)
    results = run_dir.resolve().parents[2]
    planned = None
    for run in plan_runs(knobs, costs):
        folder = run_folder(case, knobs, run, benchmark=benchmark, recipe=recipe, results=results)
        if folder.path == run_dir.resolve():
            folder.identity = identity  # with the suite it belongs to, which a sweep hashes in its own way
            planned = Planned(knobs, run, folder)
    share = costs.of(identity["seed"]).auxiliary_share
    costs.close()
    if planned is None:
        raise Mt2stError(
            f"{run_dir} is no run that this code plans on these data (changed data, code or machine?); repeat the "
            "suite's command"
        )
    outcome = run_one(case, planned, share, environment(), lambda step: None, 0.0)
    console.print(f"{run_dir.name}: {outcome.text}", highlight=False, markup=False)
    return int(outcome.kind == "failed")


def _knobs_of(card: CaseCard, run_dir: Path, identity: dict[str, Any]) -> SuiteKnobs:
    """The knobs of one run, from its config.json."""
    conditions = dict(identity.get("conditions", {}))
    place = conditions.pop("strategy_place", "")
    if not place:
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
    return from_plain(knobs_kind, {**settings, "strategies": (place,), "seeds": identity["seed"] + 1})


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
