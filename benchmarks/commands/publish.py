"""publish CASE: pack a suite's runs into one small file, with tables and pictures, to be kept in a repository."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.cases import load_card
from benchmarks.options import parser_of
from benchmarks.strategies import strategy_names


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if what was published has holes, else 0."""
    parser = parser_of(
        "publish",
        "Pack the runs of a suite into one file, runs.zip, and write tables, pictures and summary from that file. "
        "`report CASE --results OUT` derives them again.",
    )
    parser.add_argument("case", help="case whose runs to publish")
    parser.add_argument("--recipe", default="default", help="recipe (default: default)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs (default: results)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/published"),
        help="folder to publish in, as OUT/CASE/RECIPE (default: results/published)",
    )
    parser.add_argument(
        "--suite", default=None, help="first digits of a suite's hash, if the folder holds several; default: the latest"
    )
    parser.add_argument(
        "--with-holes", action="store_true", help="publish a suite with failed or missing runs too, and say so in it"
    )
    options = parser.parse_args(argv)
    case = load_card(options.case)
    from rich.console import Console

    from benchmarks.commands._reproduce import reproduce
    from benchmarks.report.publish import publish

    paths = publish(
        options.case,
        options.recipe,
        options.results,
        options.out,
        spec=case.spec,
        known=strategy_names(),
        console=Console(),
        suite_hash=options.suite,
        with_holes=options.with_holes,
        reproduce=partial(reproduce, case, options.recipe),
    )
    return 1 if paths.holes else 0
