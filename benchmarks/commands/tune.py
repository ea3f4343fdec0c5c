"""tune CASE: choose every strategy's settings with the same number of trials, on validation only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.cases import load_card
from benchmarks.options import parser_of


def main(argv: list[str]) -> int:
    """Entry point; returns 0."""
    parser = parser_of("tune", "Choose each strategy's settings on validation, with the same number of trials.")
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("--recipe", default="default", help="recipe whose settings are searched (default: default)")
    parser.add_argument("--smoke", action="store_true", help="the recipe in small, for a first look")
    parser.add_argument(
        "--strategies", nargs="+", help="names, or classes in files such as my_fade.py:Cosine (default: the recipe's)"
    )
    parser.add_argument("--trials", type=int, default=8, help="trials of each strategy (default: 8)")
    parser.add_argument(
        "--most-trials",
        type=int,
        help="all strategies get further trials, up to so many, while a best value lies on an edge (default: half as "
        "many again)",
    )
    parser.add_argument("--seeds", type=int, default=2, help="seeds a trial is averaged over (default: 2)")
    parser.add_argument(
        "--first-seed", type=int, default=1000, help="the first of them; suites report 0, 1, … (default: 1000)"
    )
    parser.add_argument(
        "--with-recipe",
        action="store_true",
        help="each strategy's second trial is what the recipe has now, and its search goes on from the better one",
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=float,
        help="budgets a trial is averaged over, as shares of full MTL's FLOPs (default: the recipe's)",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the log (default: results)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a run (default: 1)")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time (default: as many as the machine carries)")
    options = parser.parse_args(argv)
    card = load_card(options.case)
    knobs = card.knobs(options.recipe, smoke=options.smoke)
    knobs = replace(knobs, threads=options.threads, where=replace(knobs.where, jobs=options.jobs))
    if options.strategies:
        knobs = replace(knobs, strategies=tuple(options.strategies))
    if options.budgets:
        knobs = replace(knobs, budgets=tuple(options.budgets))
    from benchmarks.suite.tuning import Effort, search

    most = options.trials * 3 // 2 if options.most_trials is None else options.most_trials
    effort = Effort(options.trials, most, options.seeds, options.first_seed, options.with_recipe)
    recipe = f"{options.recipe}-smoke" if options.smoke else options.recipe
    return search(card, knobs, recipe, options.results, effort)
