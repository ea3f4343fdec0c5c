"""How to reproduce: the command that the records give parses to the knobs that made them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from benchmarks.cases import load_card
from benchmarks.commands._case import parse_knobs
from benchmarks.commands._reproduce import reproduce, suite_command
from benchmarks.records.metrics_log import plain
from benchmarks.records.read import RunRecord
from benchmarks.report.views import budget_view
from mt2st.training.config import deciding

LINES = (
    ("vqa", "default", ""),
    (
        "vqa",
        "default",
        "--seeds 3 --steps 77 --encoder.width 32 --encoder.freeze vision --weight-decay 0.5 --keep-best",
    ),
    ("vqa", "default", "--auxiliaries contrastive --switch.at contrastive=0.7 --budgets 0.44 --mtl.weight 3e-05"),
    ("vqa", "curve-smoke", "--label-fraction 0.25 --strategies STL MTL Switch:contrastive --on-leak drop"),
    ("retrieval", "default", "--languages en --data openmoji --draw fixed --views equal-steps"),
    ("image", "default-smoke", "--seeds 2"),
    ("vqa", "default", "--budgets 0.3 0.44 --no-full-mtl"),
    ("vqa", "default", "--budgets 0.44 1.0"),
    ("vqa", "default", "--strategies STL Switch"),
    ("vqa", "default", "--views equal-steps equal-budget"),
)


@pytest.mark.parametrize(("case", "recipe", "line"), LINES)
def test_the_command_makes_the_same_knobs_again(case: str, recipe: str, line: str) -> None:
    card = load_card(case)
    base, smoke = recipe.removesuffix("-smoke"), recipe.endswith("-smoke")
    made = parse_knobs(card.knobs(base, smoke=smoke), shlex.split(line), prog="p", description="")
    words = suite_command(card, recipe, records_of(case, made))
    assert words[:4] == ["python", "-m", "benchmarks", case]
    rest = words[4:]
    if base != "default":
        assert rest[:2] == ["--recipe", base]
        rest = rest[2:]
    assert ("--smoke" in rest) == smoke
    again = parse_knobs(
        card.knobs(base, smoke=smoke), [word for word in rest if word != "--smoke"], prog="p", description=""
    )
    assert again.shared() == made.shared()
    assert [kind.name for kind in again.kinds()] == [kind.name for kind in made.kinds()]
    for kind in made.kinds():
        assert deciding(again.strategy(kind.name)) == deciding(made.strategy(kind.name))
    for name in ("seeds", "budgets", "views", "full_mtl", "on_leak"):
        assert getattr(again, name) == getattr(made, name), name
    if not line:
        assert words == ["python", "-m", "benchmarks", case], "what is the recipe's is not said again"


def records_of(case: str, knobs) -> list[RunRecord]:  # type: ignore[no-untyped-def]
    views = [view for view in knobs.views if view == "equal-steps"]
    budgets = [budget_view(share) for share in knobs.budgets] if "equal-budget" in knobs.views else []
    full = [budget_view(1)] if budgets and knobs.full_mtl else []
    return [
        RunRecord(
            Path("run"),
            {
                "strategy": kind.name,
                "seed": seed,
                "views": [*views, *budgets, *(full if kind.name == "MTL" and full != budgets[-1:] else [])],
                "config": {
                    "knobs": plain(knobs.shared(), "knobs"),
                    "strategy": plain(deciding(knobs.strategy(kind.name)), "strategy"),
                },
                "conditions": {"on_leak": knobs.on_leak, "strategy_place": kind.name},
                "commit": {"hash": "a" * 40, "dirty": True},
            },
        )
        for seed in range(knobs.seeds)
        for kind in knobs.kinds()
    ]


def test_commit_and_command_are_said_and_what_is_gone_is_said_too() -> None:
    card = load_card("vqa")
    runs = records_of("vqa", card.knobs("default"))
    commit, command = reproduce(card, "default", runs)
    assert commit == (
        "Take the code that made the runs, which had local changes that no commit holds",
        f"git checkout {'a' * 40}",
    )
    assert command[1] == "python -m benchmarks vqa"
    gone = reproduce(card, "a-recipe-of-before", runs)[1]
    assert "a-recipe-of-before" in gone[0]
    assert reproduce(card, "default", []) == []
