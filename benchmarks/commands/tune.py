"""tune CASE: choose every strategy's settings with the same number of trials, on validation only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.cases import load_card
from benchmarks.cases.shared.suite_knobs import VIEWS
from benchmarks.options import parser_of
from benchmarks.report.views import EQUAL_BUDGET


def main(argv: list[str]) -> int:
    """Entry point; returns 0."""
    parser = parser_of("tune", "Choose each strategy's settings on validation, with the same number of trials.")
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("--recipe", default="default", help="recipe whose settings are searched (default: default)")
    parser.add_argument(
        "--strategies", nargs="+", help="names, or classes in files such as my_fade.py:Cosine (default: the recipe's)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="seeds a trial is averaged over (default: 1)")
    parser.add_argument(
        "--views",
        nargs="+",
        choices=VIEWS,
        default=[EQUAL_BUDGET],
        help="views a trial is averaged over (default: equal-budget)",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the log (default: results)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    options = parser.parse_args(argv)
    card = load_card(options.case)
    knobs = replace(
        card.knobs(options.recipe), seeds=options.seeds, views=tuple(options.views), threads=options.threads
    )
    if options.strategies:
        knobs = replace(knobs, strategies=tuple(options.strategies))
    from benchmarks.suite.tuning import search

    return search(card, knobs, options.recipe, options.results)
