"""The command that makes a suite's runs again, from their records: case, recipe, and each knob that differs from it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from benchmarks.cases import CaseCard
from benchmarks.records.metrics_log import plain
from benchmarks.records.read import RunRecord
from benchmarks.report.views import EQUAL_BUDGET, EQUAL_STEPS, MULTI_TASK, budget_of, budget_view, is_budget
from benchmarks.strategies import find_strategy
from mt2st.errors import Mt2stError
from mt2st.training.config import deciding

_SMOKE = "-smoke"


def reproduce(card: CaseCard, recipe: str, runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """(what it does, command): the commit, and the suite's command.

    Settings of strategies are compared with those that the command itself would give them. What this version does not
    know any more, such as a recipe that is gone, is said in place of a command.
    """
    if not runs:
        return []
    found = []
    commits = {str(run.values["commit"].get("hash")) for run in runs if isinstance(run.values.get("commit"), Mapping)}
    dirty = any(run.values["commit"].get("dirty") for run in runs if isinstance(run.values.get("commit"), Mapping))
    if len(commits) == 1:
        local = ", which had local changes that no commit holds" if dirty else ""
        found.append((f"Take the code that made the runs{local}", f"git checkout {shlex.quote(commits.pop())}"))
    try:
        words = suite_command(card, recipe, runs)
    except Mt2stError as error:
        found.append(
            (f"This version cannot make these runs again: {error}", f"python -m benchmarks {card.name} --help")
        )
        return found
    found.append(("Make the runs again; those that are finished are skipped", shlex.join(words)))
    return found


def suite_command(card: CaseCard, recipe: str, runs: Sequence[RunRecord]) -> list[str]:
    """The words of the suite's command.

    Raises:
        Mt2stError: a recipe or a strategy that this version does not know.
    """
    smoke = recipe.endswith(_SMOKE)
    knobs = card.knobs(recipe.removesuffix(_SMOKE), smoke=smoke)
    words = ["python", "-m", "benchmarks", card.name]
    if recipe.removesuffix(_SMOKE) != "default":
        words += ["--recipe", recipe.removesuffix(_SMOKE)]
    words += ["--smoke"] if smoke else []
    recorded = runs[-1].values["config"].get("knobs", {})
    words += _differing(
        plain(knobs.shared(), "knobs"),
        recorded,
        nested=[each.name for each in fields(knobs) if is_dataclass(getattr(knobs, each.name))],
    )
    seeds = 1 + max(run.seed for run in runs)
    words += ["--seeds", str(seeds)] if seeds != knobs.seeds else []
    words += _views(knobs, runs)
    first = {run.strategy: run for run in reversed(runs)}
    places = {name: str(run.values.get("conditions", {}).get("strategy_place", name)) for name, run in first.items()}
    usual = [kind.name for kind in knobs.kinds()]
    ordered = [name for name in usual if name in first] + sorted(set(first) - set(usual))
    if ordered != usual:
        words += ["--strategies", *(places[name] for name in ordered)]
    for name in ordered:
        kind = find_strategy(places[name])
        if not kind.only:  # one with some of the auxiliaries follows the settings of its whole
            settings = plain(deciding(knobs.strategy(places[name])), "settings")
            words += _differing(settings, first[name].values["config"].get("strategy", {}), f"{kind.key}.")
    leak = runs[-1].values.get("conditions", {}).get("on_leak", knobs.on_leak)
    return words + (["--on-leak", leak] if leak != knobs.on_leak else [])


def _views(knobs: Any, runs: Sequence[RunRecord]) -> list[str]:
    """Options for the comparisons that were made, where they are not the recipe's."""
    mine = {view for run in runs if run.strategy == MULTI_TASK for view in run.views}
    others = {view for run in runs if run.strategy != MULTI_TASK for view in run.views}
    views, full = mine | others, budget_view(1)
    made = [EQUAL_STEPS] * (EQUAL_STEPS in views) + [EQUAL_BUDGET] * any(map(is_budget, views))
    words = ["--views", *made] if set(made) != set(knobs.views) else []
    if knobs.full_mtl and any(map(is_budget, mine)):
        if full not in mine:
            words.append("--no-full-mtl")
        elif full not in others and any(map(is_budget, views - {full})):
            views = views - {full}  # which the recipe brings
    shares = sorted(share for view in views if (share := budget_of(view)) is not None)
    return words + (
        ["--budgets", *(f"{share:g}" for share in shares)] if shares not in ([], sorted(knobs.budgets)) else []
    )


def _differing(
    usual: Mapping[str, Any], recorded: Mapping[str, Any], prefix: str = "", nested: Collection[str] = ()
) -> list[str]:
    """Options for what `recorded` has and the recipe has otherwise, in the order of their names.

    Args:
        nested: fields that are dataclasses themselves; another mapping is a value for each auxiliary.
    """
    return [word for name, value in _changes(usual, recorded, nested) for word in _option(prefix + name, value)]


def _changes(
    usual: Mapping[str, Any], recorded: Mapping[str, Any], nested: Collection[str]
) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(recorded.items()):
        if name not in usual or usual[name] == value:
            continue
        if isinstance(value, Mapping) and isinstance(usual[name], Mapping) and name in nested:
            front = "" if name == "train" else f"{name}."  # the options for training have no prefix
            yield from ((front + inner, found) for inner, found in _changes(usual[name], value, ()))
        else:
            yield name, value


def _option(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        front, dot, last = name.rpartition(".")
        return [option if value else f"--{front}{dot}no-{last}".replace("_", "-")]
    if isinstance(value, Mapping):  # a value for each auxiliary
        return [option, *(f"{key}={number:g}" for key, number in value.items())]
    if isinstance(value, list):
        return [option, *map(_word, value)]
    return [option, _word(value)]


def _word(value: Any) -> str:
    return "None" if value is None else repr(value) if isinstance(value, float) else str(value)
