"""Strategies: found by name, also in other people's files; a schedule for each auxiliary; steps for a budget."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cases import case_names, load_card
from benchmarks.cases.shared.auxiliary_subsets import subsets
from benchmarks.cases.shared.suite_knobs import SuiteKnobs, from_plain
from benchmarks.cases.vqa import knobs as vqa
from benchmarks.strategies import (
    built_in,
    default_strategies,
    each,
    find_strategies,
    find_strategy,
    schedules_of,
    strategy_names,
    strategy_recipes,
)
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.staged import Staging
from benchmarks.strategies.switch import Switching
from benchmarks.suite.plan import steps_for_budget, training_flops
from mt2st.controls import Linear
from mt2st.errors import Mt2stError
from mt2st.schedules import Constant, Diminish, Off, Sampled, Switch, weight_at
from tests.helpers.documentation import ROOT, files_of

PRIMARY_COST, AUXILIARY_COST = 5, 7
COSINE = files_of(ROOT / "docs" / "add" / "strategy.md")["my_fade.py"]


@pytest.fixture
def my_fade(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "my_fade.py"
    path.write_text(COSINE)
    yield path
    for name in [name for name in sys.modules if name.startswith("mt2st_strategy_")]:
        del sys.modules[name]


def cost(active: tuple[str, ...], progress: float = 0.0) -> int:
    return PRIMARY_COST + AUXILIARY_COST * (len(active) - 1)


# -- finding -----------------------------------------------------------------------------------------------------------


def test_the_table_is_the_folder() -> None:
    files = {path.stem for path in (ROOT / "benchmarks" / "strategies").glob("[!_]*.py")}
    assert {kind.key for kind in built_in()} == files
    assert strategy_names()[:6] == default_strategies()
    assert default_strategies() == ("STL", "MTL", "Diminish", "Switch", "Sampled Diminish", "Thinned")
    assert find_strategy("sampled diminish") == find_strategy("sampled") == built_in()[4]


def test_a_recipe_adds_the_strategies_that_name_it_to_the_default_ones() -> None:
    added = default_strategies("controls")
    assert added[:6] == default_strategies()
    assert {"Late", "Staged", "Static weights"} <= set(added)
    for name in case_names():
        card = load_card(name)
        assert card.recipes["default"].strategies == default_strategies()
        assert card.recipes["controls"].strategies == added
        assert set(strategy_recipes()) <= set(card.recipes)


def test_nothing_else_lists_the_names() -> None:
    """Reports and knobs know the references STL and MTL; the other names stand in their own files and in cases."""
    for path in (ROOT / "benchmarks").rglob("*.py"):
        inside = path.relative_to(ROOT / "benchmarks").parts[0]
        if inside not in ("strategies", "cases"):
            text = path.read_text()
            assert '"Sampled Diminish"' not in text, path
            assert '"Switch"' not in text, path


def test_every_built_in_strategy_schedules_each_auxiliary() -> None:
    for kind in built_in():
        schedules = schedules_of(kind.kind(), ("one", "two"))
        assert list(schedules) == ["one", "two"]
        assert all(schedule(progress) >= 0 for schedule in schedules.values() for progress in (0.0, 0.5, 1.0))


def test_staged_auxiliaries_leave_one_after_the_other() -> None:
    names = ("a", "b", "c", "d")
    line = schedules_of(Staging(end=0.8), names)
    assert [[line[name](t / 10) for name in names] for t in (0, 1, 3, 7, 8)] == [
        [1, 1, 1, 1],
        [pytest.approx(0.5), 1, 1, 1],
        [0, pytest.approx(0.5), 1, 1],
        [0, 0, 0, pytest.approx(0.5)],
        [0, 0, 0, 0],
    ]
    steps = schedules_of(Staging(end=0.8, linear=False, order=("d", "c", "b", "a")), names)
    assert [[name for name in names if steps[name](t / 10)] for t in (1, 3, 5, 7, 9)] == [
        ["a", "b", "c", "d"],
        ["a", "b", "c"],
        ["a", "b"],
        ["a"],
        [],
    ]
    assert steps["a"](0.79) == 1, "stepwise: the full weight until it leaves"
    with pytest.raises(Mt2stError, match="order = a b must name each auxiliary once; they are a b c d"):
        schedules_of(Staging(order=("a", "b")), names)


def test_an_auxiliary_of_weight_zero_takes_no_stage() -> None:
    schedules = schedules_of(Staging(end=0.8, weight={"a": 0.0, "b": 1.0, "c": 2.0}, order=("a", "b", "c")), "abc")
    assert schedules["a"] == Off()
    assert schedules["b"] == Linear(0.0, 0.4, 1.0)
    assert schedules["c"] == Linear(0.4, 0.8, 2.0)


def test_a_class_of_another_file_is_a_strategy(my_fade: Path) -> None:
    assert len(COSINE.splitlines()) <= 30
    for text in (str(my_fade), f"{my_fade}:Cosine"):
        kind = find_strategy(text)
        assert (kind.name, kind.key, kind.place) == ("Cosine", "cosine", f"{my_fade}:Cosine")
        assert len(kind.code_hash) == 64
    knobs = SuiteKnobs(strategies=("STL", f"{my_fade}:Cosine"), auxiliaries=("a",))
    assert [kind.name for kind in knobs.kinds()] == ["STL", "Cosine"]
    assert knobs.strategy("STL").schedule("a")(0.5) == 0
    fade = knobs.strategy(str(my_fade)).schedule("a")
    assert [round(fade(progress), 3) for progress in (0.0, 0.5, 1.0)] == [1.0, 0.5, 0.0]
    assert list(find_strategy(str(my_fade)).axes()) == ["learning_rate", "weight"]


def test_an_untuned_strategy_starts_from_mtl(my_fade: Path) -> None:
    knobs = vqa.Knobs(strategies=("MTL", str(my_fade)), settings=load_card("vqa").knobs("default").settings)
    settings = knobs.strategy(str(my_fade))
    assert settings.learning_rate == knobs.strategy("MTL").learning_rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COSINE = 1\n", "must hold one class with schedule"),
        ("class A:\n    def schedule(self, auxiliary): ...\n", "must be a dataclass with a field learning_rate"),
        ("import no_such_package_at_all\n", "cannot be imported: ModuleNotFoundError"),
        (COSINE.replace("class Cosine:", "class Cosine:\n    name = 'Switch'"), "has the name of a built-in one"),
        (COSINE.replace("learning_rate: float = 2e-3", "learning_rate: float"), "give every field a default"),
        (COSINE + COSINE.replace("class Cosine:", "class Other:"), "it has Cosine, Other; name one"),
    ],
)
def test_a_file_that_is_no_strategy_is_told_what(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "odd.py"
    path.write_text(text)
    with pytest.raises(Mt2stError, match=message):
        find_strategy(str(path))


def test_unknown_names_and_files(tmp_path: Path, my_fade: Path) -> None:
    with pytest.raises(Mt2stError, match="did you mean 'Switch'"):
        find_strategy("Swich")
    with pytest.raises(Mt2stError, match=r"none.py does not exist"):
        find_strategy(str(tmp_path / "none.py"))
    with pytest.raises(Mt2stError, match="did you mean 'Cosine'"):
        find_strategy(f"{my_fade}:Cosin")
    with pytest.raises(Mt2stError, match="named 'STL', as another one is"):
        find_strategies(["STL", "stl"])


# -- a value for each auxiliary ----------------------------------------------------------------------------------------


def test_each() -> None:
    assert each(0.5, "any") == 0.5
    assert each({"a": 0.5, "b": 1.0}, "b") == 1.0
    with pytest.raises(Mt2stError, match=r"a=0.5 names no value for auxiliary 'b'; add b=…"):
        each({"a": 0.5}, "b")


def test_each_auxiliary_has_its_own_schedule() -> None:
    knobs = vqa.Knobs(
        auxiliaries=("contrastive", "masked_lm"),
        settings=(Switching(at={"contrastive": 0.7, "masked_lm": 0.3}, weight={"contrastive": 1.0, "masked_lm": 0.5}),),
    )
    settings = knobs.strategy("Switch")
    assert settings.schedule("contrastive") == Switch(0.7, 1.0)
    assert settings.schedule("masked_lm") == Switch(0.3, 0.5)
    schedules = {name: settings.schedule(name) for name in knobs.auxiliaries}
    assert training_flops(schedules, "vqa", cost, 10, seed=0) == 10 * PRIMARY_COST + (7 + 3) * AUXILIARY_COST
    steps = steps_for_budget(1000, schedules, "vqa", cost, seed=0)
    assert steps == pytest.approx(1000 / (PRIMARY_COST + (0.7 + 0.3) * AUXILIARY_COST), abs=2)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ({"contrastive": 0.7}, "names no value for auxiliary 'masked_lm'"),
        ({"contrastive": 0.7, "masked_lm": 0.3, "matchin": 1.0}, "unknown auxiliary in at of Switching"),
        ({"contrastive": 0.7, "masked_lm": 1.3}, r"at = 1.3 is outside \[0, 1\]"),
    ],
)
def test_values_for_auxiliaries_are_checked(at: dict[str, float], message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        vqa.Knobs(auxiliaries=("contrastive", "masked_lm"), settings=(Switching(at=at),))


# -- some of the auxiliaries -------------------------------------------------------------------------------------------


def test_a_weight_of_zero_switches_an_auxiliary_off_under_every_strategy() -> None:
    for kind in built_in():
        if "weight" in {field.name for field in fields(kind.kind)}:
            settings = replace(kind.kind(), weight={"contrastive": 0.0, "masked_lm": 0.5})
            schedules = schedules_of(settings, ("contrastive", "masked_lm"))
            assert schedules["contrastive"] == Off(), kind.name
            weights = [
                weight_at(schedules["masked_lm"], step=step, total_steps=50, seed=0, task="m") for step in range(50)
            ]
            assert max(weights) == 0.5, kind.name
            assert training_flops(schedules, "vqa", cost, 10, seed=0) <= 10 * (PRIMARY_COST + AUXILIARY_COST)


def test_a_strategy_with_some_auxiliaries_is_a_row_of_its_own() -> None:
    auxiliaries = ("contrastive", "masked_lm", "matching")
    knobs = vqa.Knobs(
        auxiliaries=auxiliaries,
        strategies=("STL", *subsets(auxiliaries, ("MTL",)), "Switch:masked_lm"),
        settings=(MultiTask(0.004, weight={"contrastive": 0.3, "masked_lm": 0.7, "matching": 0.1}),),
    )
    names = [kind.name for kind in knobs.kinds()]
    assert len(names) == len(set(names)) == 1 + 1 + 3 + 3 + 1
    assert knobs.strategy("MTL:matching+contrastive") == MultiTask(
        0.004, weight={"contrastive": 0.3, "masked_lm": 0.0, "matching": 0.1}
    )
    switch = knobs.strategy("Switch:masked_lm")
    assert schedules_of(switch, auxiliaries) == {"contrastive": Off(), "masked_lm": Switch(0.4, 0.7), "matching": Off()}
    assert switch.learning_rate == 0.004, "settings nobody gave start from MTL's"
    # What a run's config.json holds gives the same settings again.
    again = replace(knobs, settings=(switch,), strategies=("Switch:masked_lm",))
    assert again.strategy("Switch:masked_lm") == switch


def test_a_strategy_of_another_file_with_some_auxiliaries(my_fade: Path) -> None:
    kind = find_strategy(f"{my_fade}:Cosine:a")
    assert (kind.name, kind.only, kind.code_hash) == ("Cosine:a", ("a",), find_strategy(str(my_fade)).code_hash)
    assert find_strategy(kind.place) == kind
    knobs = SuiteKnobs(strategies=(kind.place,), auxiliaries=("a", "b"))
    assert knobs.strategy("Cosine:a").weight == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MTL:contrastiv", "auxiliary in strategy 'MTL:contrastiv' 'contrastiv'; did you mean 'contrastive'"),
        ("MTL:", "names no auxiliaries"),
        ("MTL:contrastive:masked_lm", "names no auxiliaries"),
        ("STL:contrastive", "STL:contrastive names no auxiliaries of a strategy that weighs them"),
        ("Swich:contrastive", "did you mean 'Switch'"),
    ],
)
def test_subsets_that_are_none(name: str, message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        vqa.Knobs(strategies=(name,))


# -- budgets -----------------------------------------------------------------------------------------------------------


@given(at=st.floats(0, 1), budget=st.integers(100, 5000))
def test_switch_steps_follow_the_formula(at: float, budget: int) -> None:
    steps = steps_for_budget(budget, {"aux": Switch(at)}, "vqa", cost, seed=0)
    # The switch falls on a whole step: one auxiliary step more costs up to 7 / 5 primary steps, and a part of a step is
    # not run.
    assert abs(steps - budget / (PRIMARY_COST + at * AUXILIARY_COST)) <= AUXILIARY_COST / PRIMARY_COST + 1


@pytest.mark.parametrize(
    "schedule",
    [Off(), Constant(2.0), Switch(0.4), Diminish(rate=4.0), Sampled(Diminish(rate=3.0))],
    ids=lambda schedule: type(schedule).__name__,
)
def test_budget_is_kept_and_used(schedule: object) -> None:
    schedules = {"aux": schedule, "more": schedule}
    steps = steps_for_budget(4000, schedules, "vqa", cost, seed=3)  # type: ignore[arg-type]
    spent = training_flops(schedules, "vqa", cost, steps, seed=3)  # type: ignore[arg-type]
    assert spent <= 4000
    assert spent > 4000 - 3 * cost(("vqa", "aux", "more"))


def test_single_and_multi_task_costs() -> None:
    assert training_flops({"aux": Off()}, "vqa", cost, 10, seed=0) == 10 * PRIMARY_COST
    assert training_flops({"aux": Constant()}, "vqa", cost, 10, seed=0) == 10 * (PRIMARY_COST + AUXILIARY_COST)


def test_budget_below_one_step() -> None:
    with pytest.raises(Mt2stError, match="less than one step"):
        steps_for_budget(4, {"aux": Off()}, "vqa", cost, seed=0)


# -- knobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategies": ("Swich",)}, "did you mean 'Switch'"),
        ({"views": ("equal-stepz",)}, "did you mean 'equal-steps'"),
        ({"steps": 0}, "steps = 0"),
        ({"seeds": 0}, "seeds = 0"),
        ({"budgets": (0.44, 0.0)}, "budgets = 0.0"),
        ({"budgets": ()}, "budgets must not be empty"),
        ({"budgets": (0.44, 0.44)}, "names a share twice"),
        ({"settings": (Switching(at=1.5),)}, r"at = 1.5 is outside \[0, 1\]"),
        ({"strategies": ()}, "must not be empty"),
        ({"threads": -1}, "threads = -1"),
        ({"draw": "sometimes"}, "unknown draw"),
        ({"auxiliaries": ("a", "a")}, "names 'a' twice"),
    ],
)
def test_bad_knobs_name_the_cure(change: dict[str, object], message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        SuiteKnobs(**change)  # type: ignore[arg-type]


def test_knobs_survive_a_config_file() -> None:
    knobs = vqa.Knobs(steps=77, auxiliaries=("contrastive", "masked_lm"), data_workers=2)
    values = json.loads(json.dumps({**knobs.shared(), **knobs.conditions()}))
    back = from_plain(vqa.Knobs, values)
    assert back == knobs
    with pytest.raises(Mt2stError, match="unknown knob"):
        from_plain(vqa.Knobs, {"stepz": 3})


def test_which_knobs_decide_numbers_stands_on_the_knob() -> None:
    shared = SuiteKnobs().shared()
    planned = ("seeds", "until_decided", "strategies", "settings", "views", "budgets")
    for name in (*planned, "data_folder", "data_workers", "trackers", "on_leak"):
        assert name not in shared, name
    assert {"steps", "draw", "train", "threads"} <= set(shared)
    assert "checkpoint_every_steps" not in shared["train"]
    assert shared["train"]["weight_decay"] == 0.01


@pytest.mark.parametrize("case", case_names())
def test_a_case_changes_defaults_and_not_what_a_knob_decides(case: str) -> None:
    """A run knows nothing of how many seeds its suite has: its process plans it again from its own seed."""
    knobs = load_card(case).knobs("default")
    assert replace(knobs, seeds=knobs.seeds + 1).shared() == knobs.shared()
    own = {each.name: each.metadata for each in fields(knobs)}
    assert {each.name: own[each.name] for each in fields(SuiteKnobs)} == {
        each.name: each.metadata for each in fields(SuiteKnobs)
    }


@pytest.mark.parametrize(
    "module", ["benchmarks.strategies", *[f"benchmarks.cases.{name}.knobs" for name in case_names()]]
)
def test_knobs_and_strategies_import_no_torch(module: str) -> None:
    imports = f"import {module}, sys; from benchmarks.strategies import built_in"
    code = f"{imports}; built_in(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
