"""report CASE: print and write the report of a case, from its records alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.cases import load_card
from benchmarks.options import parser_of
from benchmarks.strategies import strategy_names


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if the report has holes (failed, unfinished or damaged runs), else 0."""
    parser = parser_of("report", "Print and write a case's report, derived from its run records alone.")
    parser.add_argument("case", help="case whose records to report")
    parser.add_argument("--recipe", default="default", help="recipe (default: default)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the records (default: results)"
    )
    parser.add_argument(
        "--suite", default=None, help="first digits of a suite's hash, if the folder holds several; default: the latest"
    )
    parser.add_argument(
        "--method",
        choices=("student", "percentile"),
        default="student",
        help="intervals from the bootstrap: Student's, honest with few seeds, or plain percentiles (default: student)",
    )
    options = parser.parse_args(argv)
    case = load_card(options.case)
    from benchmarks.commands._reproduce import reproduce
    from benchmarks.report.write import report

    paths = report(
        options.case,
        options.recipe,
        options.results,
        spec=case.spec,
        known=strategy_names(),
        suite_hash=options.suite,
        method=options.method,
        reproduce=partial(reproduce, case, options.recipe),
    )
    return 1 if paths.holes else 0
