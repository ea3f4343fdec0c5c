"""A suite: every strategy × seed × view of a case, each run a folder that survives.

A case says how to build an experiment for a seed; strategies, budgets, training and records are the same for all
cases. Equal configuration means equal run: what is finished is skipped, what is unfinished goes on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from benchmarks.cases import Case
from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from benchmarks.records.disk_space import require_space
from benchmarks.records.machine import environment
from benchmarks.suite import ranks
from benchmarks.suite.costs import mixture_of
from benchmarks.suite.drive import drive
from benchmarks.suite.init_from import in_one_line, start_from
from benchmarks.suite.launch import launch
from benchmarks.suite.plan import SuiteCosts, plan_runs
from benchmarks.suite.runs import Planned, begun_folder, begun_run, open_case, run_folder
from benchmarks.suite.train import run_one
from mt2st.schedules import Constant
from mt2st.threads import computing_threads


@dataclass(frozen=True)
class Made:
    """A suite whose runs have all ended.

    Attributes:
        failed: runs that failed.
        suite_hash: what the runs have in common.
    """

    failed: int
    suite_hash: str


def make_suite(
    case: Case,
    knobs: SuiteKnobs,
    *,
    benchmark: str,
    recipe: str,
    results: Path,
    console: Console,
    looks: tuple[int, ...] = (),
) -> Made:
    """Make the runs that are not finished yet.

    Args:
        looks: what the runs record of the numbers of seeds at which their intervals are looked at.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the runs in work were checkpointed and recorded as interrupted.
        Mt2stError: there is no room, the budget pays for no step, the engine cannot work, or nothing fits of
            the weights that it shall start from.
    """
    if knobs.init_from:
        experiment = case.build(0)
        start = start_from(
            knobs, experiment, mixture_of(experiment, lambda name: Constant()), case.data, knobs.seeds - 1
        )
        console.print(in_one_line(start), highlight=False, markup=False, soft_wrap=True)
        del experiment
    costs = SuiteCosts(case, knobs, lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
    plan = [
        Planned(knobs, run, run_folder(case, knobs, run, benchmark=benchmark, recipe=recipe, results=results))
        for run in (replace(planned, looks=looks) for planned in plan_runs(knobs, costs))
    ]
    ranks.agree("what they plan", [planned.folder.identity["run_id"] for planned in plan])
    first, total = costs.of(0), sum(planned.run.flops for planned in plan)
    console.print(
        f"{len(plan)} runs, {total / 1e12:.2f} training TFLOPs; a primary step costs "
        f"{first.primary_only / 1e9:.3f} GFLOPs, with all auxiliaries {first.everything / 1e9:.3f} (auxiliaries' share "
        f"{first.auxiliary_share:.1%}, the limit of any saving at equal steps)",
        highlight=False,
    )
    costs.close()
    if ranks.is_first():
        folders = [planned.folder for planned in plan]
        retention = knobs.train.keep_checkpoints
        kept = {"nothing": 0, "weights": first.weight_bytes, "checkpoints": retention * first.checkpoint_bytes}
        require_space(
            *(results, folders, first.checkpoint_bytes, retention),
            kept=kept[knobs.keep],
            at_once=knobs.where.jobs or os.cpu_count() or 1,
        )
    failed = drive(case, plan, console)
    return Made(failed, plan[0].folder.identity["suite_hash"])


def resume_run(run_dir: Path) -> int:
    """Go on with one run from its last checkpoint (`python -m benchmarks resume RUN_DIR`); 0, or 1 if it failed.

    Raises:
        Mt2stError: the folder is no run, an older version wrote it, another process has it, or the code or data have
            changed so that this run is none of theirs.
    """
    console = Console(quiet=not ranks.is_first())
    card, knobs, run = begun_run(run_dir)
    if ranks.check_processes(knobs.processes) > ranks.world():
        return launch(knobs.processes, knobs.threads, ["resume", str(run_dir)])
    ranks.join()
    with computing_threads(knobs.threads):
        case = open_case(card, knobs, console)
        outcome = run_one(case, begun_folder(case, knobs, run, run_dir), environment())
    console.print(f"{run_dir.name}: {outcome.text}", highlight=False, markup=False)
    ranks.leave()
    return int(outcome.kind in ("failed", "held"))
