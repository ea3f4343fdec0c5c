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
BUDGET, FULL = "budget-0.44", "budget-1"
COMPARED = ("STL", "MTL", "Diminish", "Switch", "Sampled Diminish", "Thinned")
PUBLISHED = ROOT / "results" / "published"
CASES = [case for case in case_names() if (PUBLISHED / case / "default" / "summary.json").exists()]
QUOTING = (ROOT / "README.md", *sorted((ROOT / "docs" / "methods").glob("*.md")), ROOT / "docs" / "encoders.md", *CARDS)
_VALUE = re.compile(r"\d+\.\d+ ± \d+\.\d+")
_DIFFERENCE = re.compile(r"[+-]\d+\.\d+\s\[[+-]\d+\.\d+,\s[+-]\d+\.\d+\]")
_BARE = re.compile(r"\[[−+-]?\d+\.\d+,\s[−+-]?\d+\.\d+\]")


@cache
def summaries(case: str) -> list[dict[str, Any]]:
    """What is published of the case, by recipe; the default one first."""
    paths = sorted((PUBLISHED / case).glob("*/summary.json"), key=lambda path: (path.parent.name != "default", path))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def rows(case: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(view, strategy) → row of the default recipe's summary."""
    return {(row["view"], row["strategy"]): row for row in summaries(case)[0]["rows"]}


def metric_of(case: str) -> Metric:
    return load_card(case).spec.primary


def interval(row: dict[str, Any], name: str) -> Interval:
    return Interval(**row[name])


def quotable(case: str) -> Iterator[str]:
    """Every value and difference of the primary metric, as tables and sentences show it."""
    for summary in summaries(case):
        for row in summary["rows"]:
            yield interval_text(interval(row, "primary"), metric_of(case))
            for name in ("to_single", "to_multi", "to_full_multi"):
                if row[name] is not None:
                    yield difference_text(interval(row, name), metric_of(case))


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_table_of_the_readme_is_the_published_one() -> None:
    for case in CASES:
        metric, found = metric_of(case), rows(case)
        columns = [(FULL, "MTL"), *((BUDGET, name) for name in COMPARED)]
        cells = [interval_text(interval(found[column], "primary"), metric) for column in columns]
        link = f"[{case}](benchmarks/cases/{case}/README.md): {metric.directed_heading}"
        assert f"| {' | '.join([link, *cells])} |" in README.splitlines()


@pytest.mark.parametrize("case", CASES)
def test_a_card_says_what_the_records_say_of_the_claim(case: str) -> None:
    """Word by word: the sentence is derived from the records."""
    card = in_one_line((ROOT / "benchmarks" / "cases" / case / "README.md").read_text(encoding="utf-8"))
    assert in_one_line(summaries(case)[0]["iso"]["sentence"]) in card


def test_the_readme_says_in_which_cases_the_claim_holds() -> None:
    """And of VQA all that the records say."""
    by_kind: dict[str, list[str]] = {}
    for case in CASES:
        kinds = {verdict["kind"] for verdict in summaries(case)[0]["iso"]["verdicts"]}
        by_kind.setdefault(next(kind for kind in ("holds", "undecided", "fails") if kind in kinds), []).append(case)
    text = in_one_line(README)
    for kind, verb in (("holds", "holds"), ("undecided", "is undecided"), ("fails", "fails")):
        assert f"{verb} in {', '.join(by_kind.get(kind, ['no case']))}" in text
    assert in_one_line(summaries("vqa")[0]["iso"]["sentence"]) in text


@pytest.mark.parametrize("case", CASES)
def test_a_card_says_what_auxiliaries_add_and_how_strong_the_floors_are(case: str) -> None:
    card = in_one_line((ROOT / "benchmarks" / "cases" / case / "README.md").read_text(encoding="utf-8"))
    metric = metric_of(case)
    assert difference_text(interval(rows(case)[BUDGET, "MTL"], "to_single"), metric) in card
    for floor, values in summaries(case)[0]["floors"].items():
        if metric.id in values:  # some are floors of another metric
            assert f"{floor} {metric.text(values[metric.id])}" in card


@pytest.mark.parametrize("page", QUOTING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_quoted_result_is_published(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    case = page.parent.name if page in CARDS else ""
    known = {quote for name in ([case] if case else CASES) for quote in quotable(name)}
    quoted = {in_one_line(found) for pattern in (_VALUE, _DIFFERENCE) for found in pattern.findall(text)}
    assert quoted <= known, quoted - known
    assert len(_BARE.findall(text)) == len(_DIFFERENCE.findall(text)), "an interval without its mean, or in other signs"


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


@pytest.mark.parametrize("case", CASES)
def test_a_card_tells_the_auxiliaries_share(case: str) -> None:
    card = (ROOT / "benchmarks" / "cases" / case / "README.md").read_text(encoding="utf-8")
    assert f"{100 * summaries(case)[0]['limit']:.0f} %" in in_one_line(card)


def test_the_readme_fits_on_three_screens() -> None:
    assert len(README.splitlines()) <= 150
