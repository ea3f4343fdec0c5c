"""`python -m benchmarks tune CASE`: choose every strategy's settings with the same number of trials, on validation
only.

A recipe module lists its trials: `TRIALS = {"STL": (SingleTask(…), …), "MTL": (…), …}`, the same number for each
strategy. A trial is scored by the mean of the final validation metric over the chosen views and seeds; the test split
is never read. What was done before is kept, so an interrupted search goes on. Writes tuning.json (every trial) and
tuning.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.strategies import EQUAL_BUDGET, VIEWS
from mt2st.errors import Mt2stError


def main(argv: list[str]) -> int:
    """Entry point; returns 0."""
    from benchmarks.cases.discovery import load_case
    from benchmarks.cli import parser_of

    parser = parser_of("tune", "Choose each strategy's settings on validation, with the same number of trials.")
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("--recipe", default="default", help="recipe whose settings are searched (default: default)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds a trial is averaged over (default: 1)")
    parser.add_argument(
        "--views",
        nargs="+",
        choices=VIEWS,
        default=[EQUAL_BUDGET],
        help="views a trial is averaged over (default: equal-budget)",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the log (default: results)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = as torch chooses (default: 0)")
    options = parser.parse_args(argv)
    case = load_case(options.case)
    trials = getattr(case.module, "TRIALS", None)
    if not trials:
        raise Mt2stError(f"case {options.case} has no TRIALS to choose from; list them in {case.module.__file__}")
    if len({len(settings) for settings in trials.values()}) != 1:
        counts = {name: len(settings) for name, settings in trials.items()}
        raise Mt2stError(
            f"TRIALS of {options.case} differ in number, {counts}; tuning effort must be the same for every strategy"
        )
    return search(case, trials, options)


def search(case: Any, trials: Mapping[str, Any], options: argparse.Namespace) -> int:
    """Run the trials that are not in the log yet, and rewrite the log after each."""
    import torch
    from rich.console import Console

    from benchmarks.records.machine import environment
    from benchmarks.strategies import STRATEGY_KNOBS
    from benchmarks.suite.runner import StepCosts, plan_runs
    from mt2st.files import content_hash, read_sealed_json, write_sealed_json

    console = Console()
    knobs = replace(case.knobs(options.recipe), seeds=options.seeds, views=tuple(options.views))
    if options.threads:
        torch.set_num_threads(options.threads)
    data = case.module.make_case(knobs, console)
    costs = StepCosts(data.build(0))
    folder = options.results / case.name / options.recipe
    path = folder / "tuning.json"
    shared = content_hash({"knobs": knobs.shared(), "data": dict(data.data), "views": list(knobs.views)})
    log: dict[str, Any] = {"shared": shared, "seeds": options.seeds, "trials": [], **environment()}
    if path.exists():
        before = read_sealed_json(path, "delete it to search again")
        if before["shared"] == shared and before["seeds"] == options.seeds:
            log = before
    done = {(trial["strategy"], content_hash(trial["settings"])) for trial in log["trials"]}
    todo = [
        (name, settings)
        for name in trials
        for settings in trials[name]
        if (name, content_hash(asdict(settings))) not in done
    ]
    for number, (name, settings) in enumerate(todo, start=1):
        varied = replace(knobs, strategies=(name,), **{STRATEGY_KNOBS[name]: settings})
        runs = [validation_score(data, varied, run, case.spec) for run in plan_runs(varied, costs)]
        scores = [run["score"] for run in runs]
        log["trials"].append(
            {"strategy": name, "settings": asdict(settings), "score": sum(scores) / len(scores), "runs": runs}
        )
        write_sealed_json(path, log)
        values = ", ".join(f"{'+'.join(run['views'])} seed {run['seed']}: {run['score']:.4f}" for run in runs)
        console.print(f"[{number}/{len(todo)}] {name} {describe(settings)} → {values}", highlight=False, markup=False)
    write_table(folder / "tuning.md", log, case.spec)
    console.print(f"log: {path}, table: {folder / 'tuning.md'}", highlight=False)
    return 0


def validation_score(data: Any, knobs: Any, run: Any, spec: Any) -> dict[str, Any]:
    """Train one planned run without a folder; its final validation metric."""
    from benchmarks.suite.runner import mixture_of, train_config
    from mt2st.training.trainer import Trainer

    experiment = data.build(run.seed)
    strategy = knobs.strategy(run.strategy)
    config = replace(
        train_config(knobs, run), evaluate_every_steps=0, checkpoint_every_seconds=0.0, checkpoint_every_steps=0
    )
    result = Trainer(
        experiment.encoder,
        mixture_of(experiment, strategy.schedule()),
        experiment.streams,
        config,
        validate=experiment.validate,
    ).fit()
    return {
        "views": list(run.views),
        "seed": run.seed,
        "steps": run.steps,
        "flops": result.ledger.total,
        "score": result.curve[-1][spec.validation_id],
    }


def describe(settings: Any) -> str:
    """Settings in one line: "learning_rate=0.002 at=0.4"."""
    return " ".join(f"{field.name}={getattr(settings, field.name):g}" for field in fields(settings))


def write_table(path: Path, log: Mapping[str, Any], spec: Any) -> None:
    """The log as a Markdown table, best trial of each strategy in bold."""
    from mt2st.files import write_text

    sign = 1 if spec.primary.higher_is_better else -1
    best: dict[str, float] = {}
    for trial in log["trials"]:
        name, score = trial["strategy"], sign * trial["score"]
        best[name] = max(best.get(name, score), score)
    views = sorted({"+".join(run["views"]) for trial in log["trials"] for run in trial["runs"]})
    lines = [
        f"# Tuning log ({spec.validation_id} on the validation split, {log['seeds']} seed(s) a trial; the test split "
        "was not read)",
        "",
        f"| strategy | settings | score (mean) | {' | '.join(views)} |",
        f"|---|---|---|{'---|' * len(views)}",
    ]
    for trial in log["trials"]:
        cells = []
        for view in views:
            found = [run["score"] for run in trial["runs"] if "+".join(run["views"]) == view]
            cells.append(f"{sum(found) / len(found):.4f}" if found else "–")
        settings = " ".join(f"{key}={value:g}" for key, value in trial["settings"].items())
        mark = "**" if sign * trial["score"] == best[trial["strategy"]] else ""
        lines.append(f"| {trial['strategy']} | {settings} | {mark}{trial['score']:.4f}{mark} | {' | '.join(cells)} |")
    write_text(path, "\n".join(lines) + "\n")
