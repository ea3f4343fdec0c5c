"""Every result that README, method cards and guides quote is in the published records, and what they claim follows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases import case_names, load_card
from benchmarks.report.cells import difference_text, interval_text
from benchmarks.report.spec import Metric
from benchmarks.report.student import Interval
from tests.helpers.documentation import CARDS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EQUAL_BUDGET, EQUAL_STEPS = "equal-budget", "equal-steps"
FADING = ("Diminish", "Switch", "Sampled Diminish")
QUOTING = (ROOT / "README.md", *sorted((ROOT / "docs" / "methods").glob("*.md")), *CARDS)
_VALUE = re.compile(r"\d+\.\d+ ± \d+\.\d+")
_DIFFERENCE = re.compile(r"[+-]\d+\.\d+ \[[+-]\d+\.\d+,\s[+-]\d+\.\d+\]")
_BARE = re.compile(r"\[[−+-]?\d+\.\d+,\s[−+-]?\d+\.\d+\]")


@cache
def rows(case: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(view, strategy) → row of the published summary."""
    path = ROOT / "results" / "published" / case / "default" / "summary.json"
    found = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {(row["view"], row["strategy"]): row for row in found}


def metric_of(case: str) -> Metric:
    return load_card(case).spec.primary


def interval(row: dict[str, Any], name: str) -> Interval:
    return Interval(**row[name])


def quotable(case: str) -> Iterator[str]:
    """Every value and difference of the primary metric, as tables show it."""
    for row in rows(case).values():
        yield interval_text(interval(row, "primary"), metric_of(case))
        for name in ("to_single", "to_multi", "to_full_multi"):
            if row[name] is not None:
                yield difference_text(interval(row, name), metric_of(case))


def test_the_table_of_the_readme_is_the_published_one() -> None:
    for case in case_names():
        metric, found = metric_of(case), rows(case)
        columns = [(EQUAL_STEPS, "MTL"), *((EQUAL_BUDGET, name) for name in ("STL", "MTL", *FADING))]
        cells = [interval_text(interval(found[column], "primary"), metric) for column in columns]
        link = f"[{case}](benchmarks/cases/{case}/README.md): {metric.directed_heading}"
        assert f"| {' | '.join([link, *cells])} |" in README.splitlines()


@pytest.mark.parametrize("page", QUOTING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_quoted_result_is_published(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    case = page.parent.name if page in CARDS else ""
    known = {quote for name in ([case] if case else case_names()) for quote in quotable(name)}
    quoted = {" ".join(found.split()) for pattern in (_VALUE, _DIFFERENCE) for found in pattern.findall(text)}
    assert quoted <= known, quoted - known
    assert len(_BARE.findall(text)) == len(_DIFFERENCE.findall(text)), "an interval without its mean, or in other signs"
    if page in CARDS:
        assert any("±" in quote for quote in quoted), "a card says what to expect"


@pytest.mark.parametrize("card", CARDS, ids=lambda page: page.parent.name)
def test_a_card_lists_every_recipe_with_its_command(card: Path) -> None:
    text = card.read_text(encoding="utf-8")
    for recipe in getattr(load_card(card.parent.name).module, "RECIPES", ()):  # `curve` is every case's, said once
        assert f"`{recipe}`" in text
    assert f"`python -m benchmarks {card.parent.name}`" in text
    for part in ("**What.**", "**Cost.**", "**Knobs.**", "**Data.**", "**Measured.**", "**Expect.**"):
        assert part in text


def test_every_case_has_a_card() -> None:
    assert [card.parent.name for card in CARDS] == case_names()


@pytest.mark.parametrize("card", CARDS, ids=lambda page: page.parent.name)
def test_a_card_tells_the_auxiliaries_share(card: Path) -> None:
    share = rows(card.parent.name)[EQUAL_STEPS, "STL"]["compression_multi"]
    if card.parent.name == "diffusion":
        assert 0.2 < share < 0.3  # "about a quarter"
    else:
        assert re.search(rf"{share:.0%}".replace("%", r"\s%"), card.read_text(encoding="utf-8"))


# -- what the README claims in words -----------------------------------------------------------------------------------


def test_with_the_budget_every_fading_strategy_ends_below_full_mtl() -> None:
    for case in case_names():
        sign = 1 if metric_of(case).higher_is_better else -1
        for name in FADING:
            assert sign * rows(case)[EQUAL_BUDGET, name]["to_full_multi"]["estimate"] < 0, (case, name)


def test_savings_at_equal_steps() -> None:
    vqa = [rows("vqa")[EQUAL_STEPS, name] for name in FADING]
    saved = [row["compression_multi"] for row in vqa]
    assert f"save {min(saved):.0%} to {max(saved):.0%}".replace("%", "") in README.replace("\n  ", " ")
    assert all(max(abs(row["to_multi"]["low"]), row["to_multi"]["high"]) < 0.0055 for row in vqa), "half a point"
    others = [rows(case)[EQUAL_STEPS, name] for case in ("text", "representation") for name in FADING]
    level = [row for row in others if row["to_multi"]["high"] >= 0]
    costly = [row for row in others if row not in level]
    text = " ".join(README.split())

    def spread(found: list[dict[str, Any]]) -> str:
        losses = sorted(-100 * row["to_multi"]["estimate"] for row in found)
        return f"{losses[0]:.1f} to {losses[-1]:.1f} points"

    saved = sorted(100 * row["compression_multi"] for row in level)
    assert f"savings of {saved[0]:.0f} to {saved[-1]:.0f} % come with means {spread(level)} below MTL" in text
    assert all(0.015 < -row["to_multi"]["low"] < 0.035 for row in level), "losses of two to three points"
    assert f"Savings of 40 % and more cost {spread(costly)} there" in text
    assert min(row["compression_multi"] for row in costly) >= 0.40


def test_where_strategies_are_not_told_apart_and_where_auxiliaries_do_not_help() -> None:
    for case in ("retrieval", "image"):
        for name in ("STL", *FADING):
            difference = rows(case)[EQUAL_BUDGET, name]["to_multi"]
            assert difference["low"] <= 0 <= difference["high"]
    diffusion = rows("diffusion")
    losses = {name: diffusion[EQUAL_BUDGET, name]["primary"]["estimate"] for name in ("STL", "MTL", *FADING)}
    assert min(losses, key=losses.__getitem__) == "STL"
    assert diffusion[EQUAL_STEPS, "Sampled Diminish"]["to_multi"]["low"] > 0


@pytest.mark.parametrize(
    ("case", "floor", "quote"),
    [
        ("image", "k-NN on pixels", "90.6 % in image"),
        ("text", "bag of words + logistic regression", "47.7 % in text"),
        ("representation", "bag of words + logistic regression", "47.7 % in text and representation"),
    ],
)
def test_floors(case: str, floor: str, quote: str) -> None:
    table = (ROOT / "results" / "published" / case / "default" / "TABLE.md").read_text(encoding="utf-8")
    assert f"| floor: {floor} | – | {quote.split()[0]} |" in table
    assert quote in " ".join(README.split())


def test_the_readme_fits_on_three_screens() -> None:
    assert len(README.splitlines()) <= 150
