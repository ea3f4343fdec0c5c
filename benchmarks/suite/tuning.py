"""Tuning: every strategy's settings, chosen with the same number of trials on validation only.

MTL is searched first. Every other strategy starts from its defaults at MTL's learning rate and weight, so none of them
lacks the best weight. A trial is a run for each budget and seed, on seeds that no suite reports, and its score is the
mean of their validation metrics; the test split is never read. One round makes the next trial of every search, with as
many runs at a time as there are jobs; in which order they end changes nothing. Runs lie in <results>/tuning and are
made once, so an interrupted search goes on. Writes tuning.json (every trial) and tuning.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from benchmarks.cases import Case, CaseCard
from benchmarks.cases.shared.suite_knobs import SuiteKnobs, from_plain
from benchmarks.records.check import RECORD_CURE, RECORD_FILE
from benchmarks.records.machine import environment
from benchmarks.records.weights import source_run
from benchmarks.report.spec import ReportSpec
from benchmarks.report.text_table import NOTHING, TextTable, print_tables, to_markdown
from benchmarks.report.views import EQUAL_BUDGET, MULTI_TASK
from benchmarks.strategies import StrategyKind, find_strategy, schedules_of, strategy_names, training_of
from benchmarks.suite.drive import drive
from benchmarks.suite.pattern import PatternSearch, moves_of
from benchmarks.suite.plan import SuiteCosts, plan_runs, training_flops
from benchmarks.suite.runs import Planned, open_case, run_folder
from mt2st.errors import Mt2stError
from mt2st.files import content_hash, read_sealed_json, write_sealed_json, write_text
from mt2st.schedules import Constant
from mt2st.threads import computing_threads
from mt2st.training.config import deciding

FOLDER = "tuning"  # of the runs, in the results folder
_NEARLY_ALL, _NEARLY_NONE = 0.95, 0.05  # of the auxiliaries' FLOPs in MTL
_CURE = "delete it to search again"


@dataclass(frozen=True)
class Effort:
    """How much is tried, the same for every strategy.

    Attributes:
        trials: of each strategy.
        most_trials: all strategies get further trials, up to so many, while a best value lies on an edge.
        seeds: that a trial is averaged over.
        first_seed: the first of them.
        with_recipe: each strategy's second trial is what the recipe has now; its search goes on from the better one.
            A search from the defaults alone can end below settings that are known.
    """

    trials: int = 8
    most_trials: int = 12
    seeds: int = 2
    first_seed: int = 1000
    with_recipe: bool = False

    def __post_init__(self) -> None:
        for name in ("trials", "seeds"):
            if getattr(self, name) < 1:
                raise Mt2stError(f"{name} = {getattr(self, name)} must be ≥ 1")
        if self.most_trials < self.trials:
            raise Mt2stError(f"most_trials = {self.most_trials} must be at least trials = {self.trials}")

    @property
    def numbers(self) -> list[int]:
        """The seeds."""
        return list(range(self.first_seed, self.first_seed + self.seeds))


def search(card: CaseCard, knobs: SuiteKnobs, recipe: str, results: Path, effort: Effort) -> int:
    """Search the settings of the strategies of `knobs`, and write the log after each round; returns 0.

    A log of other knobs, data, seeds or number of trials is set aside under a name of its own, and said.

    Raises:
        Mt2stError: a seed of the search is one that a suite reports, a strategy has too few settings to try, or its
            first trial failed.
        KeyboardInterrupt: the runs in work were checkpointed; the same command goes on.
    """
    if effort.first_seed < knobs.seeds:
        raise Mt2stError(
            f"first_seed = {effort.first_seed} is one of the {knobs.seeds} seeds that are reported; take one from "
            f"{knobs.seeds} on"
        )
    knobs = replace(knobs, views=(EQUAL_BUDGET,))
    console = Console()
    with computing_threads(knobs.threads):
        tuning = _Tuning(card, knobs, recipe, results, effort, console)
        tuning.run()
    table = log_table(tuning.log, card.spec)
    print_tables([table], console)
    names = dict.fromkeys(trial["strategy"] for trial in tuning.log["trials"])
    lines = "\n".join(f"{tuning.log['python'][name]}," for name in names)
    console.print(f"\nfor settings=(…) in the case's knobs.py:\n{lines}\n", highlight=False, markup=False)
    write_text(tuning.folder / "tuning.md", f"{to_markdown(table)}\n```python\n{lines}\n```\n")
    console.print(f"log: {tuning.path}, table: {tuning.folder / 'tuning.md'}", highlight=False)
    return 0


class _Tuning:
    """A search that is being made.

    Attributes:
        log: what tuning.json holds.
    """

    def __init__(
        self, card: CaseCard, knobs: SuiteKnobs, recipe: str, results: Path, effort: Effort, console: Console
    ) -> None:
        self._card, self._knobs, self._recipe, self._results = card, knobs, recipe, results
        self._effort, self._console = effort, console
        self._case: Case = open_case(card, knobs, console)
        self._costs = SuiteCosts(self._case, knobs)
        self._sign = 1.0 if card.spec.primary.higher_is_better else -1.0
        self._searches: dict[str, PatternSearch] = {}
        self.folder = results / card.name / recipe
        self.path = self.folder / "tuning.json"
        head = {
            "case": card.name,
            "recipe": recipe,
            "shared": content_hash(
                {"knobs": knobs.shared(), "budgets": _budgets(knobs), "data": dict(self._case.data)}
                | ({"init_from": source_run(knobs.init_from).identity} if knobs.init_from else {})
            ),
            "seeds": effort.numbers,
            "budgets": _budgets(knobs),
            "trials_each": effort.trials,
            "metric": card.spec.validation_id,
            "with_recipe": effort.with_recipe,
        }
        self.log: dict[str, Any] = {**head, "trials": [], "refused": [], "best": {}, "edges": {}, "python": {}}
        if self.path.exists():
            before = {"with_recipe": False, **read_sealed_json(self.path, _CURE)}  # older logs do not say
            if {name: before.get(name) for name in head} == head:
                self.log = before
            else:
                kept = _set_aside(self.path, before)
                console.print(f"{self.path} was made with other knobs, data or seeds; kept as {kept}", highlight=False)
        self.log |= environment()

    def run(self) -> None:
        """All searches: MTL's, then those that start from it, then further trials for all where one is on an edge."""
        kinds = self._knobs.kinds()
        reference = find_strategy(MULTI_TASK)
        if reference in kinds:
            self._searches[reference.name] = self._search_of(reference, reference.kind())
            self._until(self._effort.trials)
        start = self._reference(reference)
        for kind in kinds:
            if kind != reference:
                self._searches[kind.name] = self._search_of(kind, kind.started_from(start))
        number = self._effort.trials
        self._until(number)
        while number < self._effort.most_trials and any(search.edges for search in self._searches.values()):
            number += 1
            self._until(number)

    def _reference(self, kind: StrategyKind) -> Any:
        """MTL's best settings: of this search, else of the log, else of the recipe."""
        if kind.name in self._searches:
            return self._searches[kind.name].best
        found = [trial for trial in self.log["trials"] if trial["strategy"] == kind.name and trial["score"] is not None]
        if found:
            best = max(found[: self._effort.trials], key=lambda trial: self._sign * trial["score"])
            return from_plain(kind.kind, best["settings"])
        self._console.print(f"{kind.name} was not searched; the others start from the recipe's settings of it")
        return self._knobs.strategy(kind.name)

    def _search_of(self, kind: StrategyKind, start: Any) -> PatternSearch:
        costs, steps, seed = self._costs.of(self._effort.first_seed), self._knobs.steps, self._effort.first_seed

        def share_of(settings: Any) -> float | None:
            return auxiliaries_share(self._varied(kind, settings).strategy(kind.name), costs, steps, seed)

        usual = share_of(start)

        def refusal(settings: Any) -> str:
            try:
                costs.check(training_of(settings, self._knobs.train))
                return why_degenerate(share_of(settings), usual)
            except Mt2stError as error:  # the knobs refuse these settings
                return str(error)

        also = [self._knobs.strategy(kind.name)] if self._effort.with_recipe else []
        return PatternSearch(start, moves_of(kind.axes(), costs.auxiliaries), refusal, also)

    def _varied(self, kind: StrategyKind, settings: Any) -> Any:
        return replace(self._knobs, strategies=(kind.place or kind.name,), settings=(), full_mtl=False).with_settings(
            settings
        )

    def _until(self, number: int) -> None:
        """Rounds until every search has so many trials."""
        while behind := {name: each for name, each in self._searches.items() if len(each.trials) < number}:
            self._round(behind)

    def _round(self, searches: Mapping[str, PatternSearch]) -> None:
        """The next trial of each search."""
        kinds = {kind.name: kind for kind in self._knobs.kinds()}
        plans = {name: self._plan(kinds[name], search.ask()) for name, search in searches.items()}
        self._costs.close()
        todo = [each for plan in plans.values() for each in plan if each.folder.state() != "finished"]
        if todo:
            drive(self._case, todo, self._console)
        for name, search in searches.items():
            settings = search.ask()
            runs = [self._scored(planned) for planned in plans[name]]
            scores = [run["score"] for run in runs if run["score"] is not None]
            score = sum(scores) / len(scores) if len(scores) == len(runs) else None
            search.tell(None if score is None else self._sign * score)
            if len(search.trials) == 1 and score is None:
                why = next(run["failed"] for run in runs if run["score"] is None)
                raise Mt2stError(f"the first trial of {name}, {_text(deciding(settings))}, failed: {why}")
            trial = {"strategy": name, "number": len(search.trials), "settings": deciding(settings)}
            trial |= {"score": score, "runs": runs}
            if kinds[name].place:
                trial["code"] = kinds[name].code_hash
            self._write(name, trial, search)

    def _plan(self, kind: StrategyKind, settings: Any) -> list[Planned]:
        varied = self._varied(kind, settings)
        benchmark, recipe, results = self._card.name, self._recipe, self._results / FOLDER
        runs = [replace(run, tested=False) for run in plan_runs(varied, self._costs, self._effort.numbers)]
        return [
            Planned(
                varied, run, run_folder(self._case, varied, run, benchmark=benchmark, recipe=recipe, results=results)
            )
            for run in runs
        ]

    def _scored(self, planned: Planned) -> dict[str, Any]:
        """What the log keeps of a run that has ended."""
        record = read_sealed_json(planned.folder.path / RECORD_FILE, RECORD_CURE)
        found = {"views": list(planned.run.views), "seed": planned.run.seed, "steps": planned.run.steps}
        if record["status"] != "finished":
            return {**found, "score": None, "failed": record["why"]}
        score = record["metrics"]["validation"][self._card.spec.validation_id]
        return {**found, "flops": record["flops"]["total"], "score": score}

    def _write(self, name: str, trial: Mapping[str, Any], search: PatternSearch) -> None:
        """The log with one trial more of strategy `name`; trials of an earlier search that came later are dropped."""
        order = [*strategy_names(), *(kind.name for kind in self._knobs.kinds())]
        others = [each for each in self.log["trials"] if each["strategy"] != name or each["number"] < trial["number"]]
        trials = [*others, trial]
        known = {each["strategy"]: None for each in trials}
        places = {each: order.index(each) if each in order else len(order) for each in known}
        self.log["trials"] = sorted(trials, key=lambda each: (places[each["strategy"]], each["number"]))
        self.log["refused"] = [each for each in self.log["refused"] if each["strategy"] != name]
        self.log["refused"] += [
            {"strategy": name, "settings": deciding(settings), "why": why} for settings, why in search.refused
        ]
        self.log["best"][name] = deciding(search.best)
        self.log["edges"][name] = search.edges
        self.log["python"][name] = as_python(search.best)
        write_sealed_json(self.path, self.log)


def _budgets(knobs: SuiteKnobs) -> list[float]:
    return sorted(knobs.budgets)


class Costs(Protocol):
    """What a step costs; `benchmarks.suite.costs.StepCosts` is one."""

    primary: str
    auxiliaries: tuple[str, ...]

    def __call__(self, active: tuple[str, ...], progress: float) -> int: ...


def auxiliaries_share(settings: Any, costs: Costs, steps: int, seed: int) -> float | None:
    """The auxiliaries' FLOPs in a run of `steps` steps, as a share of those in MTL; None without auxiliaries."""
    own, all_active = schedules_of(settings, costs.auxiliaries), dict.fromkeys(costs.auxiliaries, Constant())
    stl, mtl, total = (training_flops(each, costs.primary, costs, steps, seed) for each in ({}, all_active, own))
    return (total - stl) / (mtl - stl) if mtl > stl else None


def why_degenerate(share: float | None, usual: float | None) -> str:
    """Why settings make of a strategy what MTL or STL already are, by `auxiliaries_share`; "" = they do not.

    Args:
        share: of the settings.
        usual: of the strategy's usual ones; one that is MTL or STL in cost by itself may be so.
    """
    if share is None or usual is None or not _NEARLY_NONE <= usual <= _NEARLY_ALL:
        return ""
    return "" if _NEARLY_NONE <= share <= _NEARLY_ALL else f"its auxiliaries take {share:.0%} of their FLOPs in MTL"


def _set_aside(path: Path, log: Mapping[str, Any]) -> Path:
    """Rename a log, and its table, after what it was made with; returns the log's new place. Nothing is overwritten."""
    stem = f"tuning-{str(log['shared'])[:8]}"
    number = 1
    while (path.parent / f"{stem}{f'-{number}' if number > 1 else ''}.json").exists():
        number += 1
    kept = path.parent / f"{stem}{f'-{number}' if number > 1 else ''}.json"
    path.rename(kept)
    table = path.with_suffix(".md")
    if table.exists():
        table.rename(kept.with_suffix(".md"))
    return kept


def as_python(settings: Any) -> str:
    """Settings as a line of Python: the class, with what differs from its defaults.

    >>> as_python(Switching(0.003, at=0.55))
    'Switching(learning_rate=0.003, at=0.55)'
    """
    default = type(settings)()
    own = [
        f"{each.name}={getattr(settings, each.name)!r}"
        for each in fields(settings)
        if getattr(settings, each.name) != getattr(default, each.name)
    ]
    return f"{type(settings).__name__}({', '.join(own)})"


def not_taken(log: Mapping[str, Any], knobs: SuiteKnobs) -> list[str]:
    """Where the settings of a recipe are not the best ones of a log, a line for each strategy."""
    found = []
    for name, best in log["best"].items():
        kind = find_strategy(name)
        if kind.only:  # a row of an ablation; its settings are those of the whole strategy
            continue
        own, wanted = knobs.strategy(name), from_plain(kind.kind, best)
        if deciding(own) != deciding(wanted):
            found.append(f"{name}: the recipe has {as_python(own)}, the log {as_python(wanted)}")
    return found


def log_table(log: Mapping[str, Any], spec: ReportSpec) -> TextTable:
    """Every trial of a log: its settings, its score, that of each budget, and whether it is its strategy's best."""
    views = sorted({view for trial in log["trials"] for run in trial["runs"] for view in run["views"]})
    body = []
    for trial in log["trials"]:
        of_view = [_mean([run["score"] for run in trial["runs"] if view in run["views"]]) for view in views]
        best = "best" if trial["settings"] == log["best"][trial["strategy"]] else ""
        means = [_number(value) for value in (trial["score"], *of_view)]
        body.append((trial["strategy"], str(trial["number"]), _text(trial["settings"]), *means, best))
    return TextTable(
        f"{spec.title}: tuning",
        ("strategy", "trial", "settings", "mean score", *views, ""),
        tuple(body),
        _about(log),
    )


def _about(log: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(trial["strategy"] for trial in log["trials"]))
    counts = {name: sum(trial["strategy"] == name for trial in log["trials"]) for name in names}
    even = len(set(counts.values())) == 1
    trials = (
        f"{next(iter(counts.values()))} trials of every strategy"
        if even
        else ("trials, NOT EQUAL: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    )
    edges = "; ".join(f"{name} {', '.join(found)}" for name, found in log["edges"].items() if found)
    refused = len(log["refused"])
    return (
        f"{log['metric']} on the validation split, seeds {' '.join(map(str, log['seeds']))}, which no suite reports; "
        f"the test split was not read. {trials}; {refused} degenerate or impossible settings were refused, untrained. "
        f"Best values on an edge: {edges or 'none'}."
    )


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _text(settings: Mapping[str, Any]) -> str:
    """Settings in one line: "learning_rate=0.002 at=0.4"."""
    return " ".join(
        f"{name}={value:g}"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else f"{name}={value}".replace(" ", "")
        for name, value in settings.items()
    )
