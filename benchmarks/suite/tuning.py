"""Tuning: every strategy's settings, chosen with the same number of trials on validation only.

A trial is scored by the mean of the final validation metric over the chosen views and seeds; the test split is never
read. What was done before is kept, so an interrupted search goes on. Writes tuning.json (every trial) and tuning.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.cases import Case, CaseCard
from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from benchmarks.records.machine import environment
from benchmarks.report.spec import ReportSpec
from benchmarks.report.text_table import NOTHING, TextTable, print_tables, to_markdown
from benchmarks.strategies import schedule_of
from benchmarks.suite.costs import mixture_of
from benchmarks.suite.plan import SuiteCosts, plan_runs
from benchmarks.suite.runs import Run, open_case, train_config
from mt2st.errors import Mt2stError
from mt2st.files import content_hash, read_sealed_json, write_sealed_json, write_text
from mt2st.threads import computing_threads
from mt2st.training.config import deciding
from mt2st.training.trainer import Trainer


def trials_of(card: CaseCard, knobs: SuiteKnobs) -> dict[str, tuple[Any, ...]]:
    """The settings to try, by strategy: each strategy's own, around the case's usual peak learning rate.

    Raises:
        Mt2stError: strategies differ in the number of their trials.
    """
    found = {kind.name: kind.trials(card.trials_around) for kind in knobs.kinds()}
    if len({len(settings) for settings in found.values()}) != 1:
        counts = ", ".join(f"{name} {len(settings)}" for name, settings in found.items())
        raise Mt2stError(
            f"the trials of {card.name} differ in number ({counts}); every strategy must get the same tuning effort: "
            "let trials() of each strategy give as many, or name --strategies that do"
        )
    return found


def search(card: CaseCard, knobs: SuiteKnobs, recipe: str, results: Path) -> int:
    """Run the trials that are not in the log yet, and rewrite the log after each; returns 0.

    A log of other knobs, data or seeds is set aside under a name of its own, and said.
    """
    with computing_threads(knobs.threads):
        return _search(card, knobs, recipe, results)


def _search(card: CaseCard, knobs: SuiteKnobs, recipe: str, results: Path) -> int:
    trials = trials_of(card, knobs)
    console = Console()
    case = open_case(card, knobs, console)
    costs = SuiteCosts(case, knobs)
    folder = results / card.name / recipe
    path = folder / "tuning.json"
    shared = content_hash({"knobs": knobs.shared(), "data": dict(case.data), "views": list(knobs.views)})
    log: dict[str, Any] = {"shared": shared, "seeds": knobs.seeds, "trials": [], **environment()}
    if path.exists():
        before = read_sealed_json(path, "delete it to search again")
        if before["shared"] == shared and before["seeds"] == knobs.seeds:
            log = before
        else:
            console.print(
                f"{path} was made with other knobs, data or seeds; kept as {_set_aside(path, before)}", highlight=False
            )
    done = {(trial["strategy"], content_hash(trial["settings"])) for trial in log["trials"]}
    todo = [
        (name, settings)
        for name, several in trials.items()
        for settings in several
        if (name, content_hash(deciding(settings))) not in done
    ]
    for number, (name, settings) in enumerate(todo, start=1):
        spec = next(text for text, kind in zip(knobs.strategies, knobs.kinds(), strict=True) if kind.name == name)
        varied = replace(knobs, strategies=(spec,)).with_settings(settings)
        planned = plan_runs(varied, costs)
        costs.close()
        runs = [validation_score(case, varied, run, card.spec) for run in planned]
        scores = [run["score"] for run in runs]
        log["trials"].append(
            {"strategy": name, "settings": deciding(settings), "score": sum(scores) / len(scores), "runs": runs}
        )
        write_sealed_json(path, log)
        values = ", ".join(f"{'+'.join(run['views'])} seed {run['seed']}: {run['score']:.4f}" for run in runs)
        console.print(
            f"[{number}/{len(todo)}] {name} {_text(deciding(settings))} → {values}", highlight=False, markup=False
        )
    table = log_table(log, card.spec)
    print_tables([table], console)
    write_text(folder / "tuning.md", to_markdown(table))
    console.print(f"log: {path}, table: {folder / 'tuning.md'}", highlight=False)
    return 0


def _set_aside(path: Path, log: Mapping[str, Any]) -> Path:
    """Rename a log, and its table, after what it was made with; returns the log's new place. Nothing is overwritten."""
    stem = f"tuning-{str(log['shared'])[:8]}-{log['seeds']}-seeds"
    number = 1
    while (path.parent / f"{stem}{f'-{number}' if number > 1 else ''}.json").exists():
        number += 1
    kept = path.parent / f"{stem}{f'-{number}' if number > 1 else ''}.json"
    path.rename(kept)
    table = path.with_suffix(".md")
    if table.exists():
        table.rename(kept.with_suffix(".md"))
    return kept


def validation_score(case: Case, knobs: SuiteKnobs, run: Run, spec: ReportSpec) -> dict[str, Any]:
    """Train one planned run without a folder; its final validation metric."""
    experiment = case.build(run.seed)
    strategy = knobs.strategy(run.strategy)
    config = replace(
        train_config(knobs, run), evaluate_every_steps=0, checkpoint_every_seconds=0.0, checkpoint_every_steps=0
    )
    result = Trainer(
        experiment.encoder,
        mixture_of(experiment, lambda name: schedule_of(strategy, name)),
        experiment.streams,
        config,
        validate=experiment.validate,
        validation_streams=experiment.validation_streams,
    ).fit()
    return {
        "views": list(run.views),
        "seed": run.seed,
        "steps": result.steps,
        "flops": result.ledger.total,
        "score": result.curve[-1][spec.validation_id],
    }


def log_table(log: Mapping[str, Any], spec: ReportSpec) -> TextTable:
    """Every trial of a log: its settings, its score, that of each view, and whether it is its strategy's best."""
    better = max if spec.primary.higher_is_better else min
    scores: dict[str, list[float]] = defaultdict(list)
    for trial in log["trials"]:
        scores[trial["strategy"]].append(trial["score"])
    views = sorted({"+".join(run["views"]) for trial in log["trials"] for run in trial["runs"]})
    body = []
    for trial in log["trials"]:
        of_view = [[run["score"] for run in trial["runs"] if "+".join(run["views"]) == view] for view in views]
        means = [f"{sum(found) / len(found):.4f}" if found else NOTHING for found in of_view]
        best = "best" if trial["score"] == better(scores[trial["strategy"]]) else ""
        body.append((trial["strategy"], _text(trial["settings"]), f"{trial['score']:.4f}", *means, best))
    return TextTable(
        f"{spec.title}: tuning",
        ("strategy", "settings", "mean score", *views, ""),
        tuple(body),
        f"{spec.validation_id} on the validation split, {log['seeds']} seed(s) a trial; the test split was not read",
    )


def _text(settings: Mapping[str, Any]) -> str:
    """Settings in one line: "learning_rate=0.002 at=0.4"."""
    return " ".join(
        f"{name}={value:g}" if isinstance(value, int | float) else f"{name}={value}".replace(" ", "")
        for name, value in settings.items()
    )
