"""power CASE: what a number of seeds can tell, from the variances of records, before a run is made."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cases import load_card
from benchmarks.options import parser_of
from benchmarks.strategies import strategy_names
from mt2st.errors import Mt2stError


def main(argv: list[str]) -> int:
    """Entry point; returns 0.

    Raises:
        Mt2stError: no records, or none with two seeds and MTL at a budget.
    """
    parser = parser_of(
        "power",
        "Print the smallest difference that a number of seeds tells from 0 with 80 % power. The variances come from "
        "records of the case: published ones, or a pilot with a few seeds.",
    )
    parser.add_argument("case", help="case whose records to read")
    parser.add_argument("--recipe", default="default", help="recipe (default: default)")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results/published"),
        help="folder of the records (default: results/published)",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[3, 5, 8, 16], help="numbers of seeds (default: 3 5 8 16)"
    )
    options = parser.parse_args(argv)
    if min(options.seeds) < 2:
        raise Mt2stError(f"seeds = {min(options.seeds)} must be ≥ 2; one seed says nothing of others")
    card = load_card(options.case)
    from rich.console import Console

    from benchmarks.records.read import load_records
    from benchmarks.report.power_table import power_table
    from benchmarks.report.summary import summarise
    from benchmarks.report.text_table import print_tables

    records = load_records(options.results, options.case, options.recipe)
    summary = summarise(records, card.spec, benchmark=options.case, recipe=options.recipe, known=strategy_names())
    table = power_table(summary, card.spec, options.seeds)
    if not table.body:
        raise Mt2stError(
            f"the records of {options.case}/{options.recipe} in {options.results} hold no difference to MTL at a "
            "budget over two seeds; make a pilot with --seeds 3"
        )
    print_tables([table], Console())
    return 0
