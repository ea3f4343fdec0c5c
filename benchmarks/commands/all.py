"""all: run every case, then one table of case × strategy."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.cases import case_names, load_card
from benchmarks.options import parser_of
from benchmarks.strategies import strategy_names
from mt2st.errors import Mt2stError, unknown_name


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a case or a run failed, else 0."""
    parser = parser_of("all", "Run every case with its default recipe, then write one table: case × strategy.")
    parser.add_argument("--smoke", action="store_true", help="every case in small, for a first look")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the records (default: results)"
    )
    parser.add_argument("--cases", nargs="+", default=None, metavar="CASE", help="only these cases (default: all)")
    parser.add_argument("--recipe", default="default", help="recipe of every case (default: default)")
    parser.add_argument("--threads", type=int, help="CPU threads of every run (default: each recipe's)")
    parser.add_argument(
        "--only-table", action="store_true", help="run nothing; only write the table from the records there are"
    )
    options = parser.parse_args(argv)
    names = options.cases or case_names()
    for name in names:
        if name not in case_names():
            raise unknown_name("case", name, case_names())
    recipe = f"{options.recipe}-smoke" if options.smoke else options.recipe
    from benchmarks.commands._case import run_case

    failed = False
    for number, name in enumerate([] if options.only_table else names, start=1):
        sys.stdout.write(f"== case {number} of {len(names)}: {name}\n")
        sys.stdout.flush()
        try:
            case = load_card(name)
            knobs = case.knobs(options.recipe, smoke=options.smoke)
            if options.threads is not None:
                knobs = replace(knobs, threads=options.threads)
            failed |= run_case(case, knobs, recipe, options.results) != 0
        # One case that cannot run must not keep the others from running.
        except (Mt2stError, OSError, ImportError, RuntimeError) as error:
            sys.stderr.write(f"error: {name}: {' '.join(str(error).split()) or type(error).__name__}\n")
            failed = True
    return 1 if write_table(names, recipe, options.results) or failed else 0


def write_table(names: list[str], recipe: str, results: Path) -> bool:
    """Write and print the table of all cases that have records, and the page; returns whether there are holes."""
    from rich.console import Console

    from benchmarks.records.read import load_records
    from benchmarks.report.all_cases import CaseSummary, all_cases_page, leaderboard_page
    from benchmarks.report.html import write_html
    from benchmarks.report.page import page_to_markdown, print_finding, print_page
    from benchmarks.report.summary import summarise
    from mt2st.files import write_text

    found: list[CaseSummary] = []
    missing = []
    for name in names:
        try:
            spec = load_card(name).spec
            records = load_records(results, name, recipe)
            summary = summarise(records, spec, benchmark=name, recipe=recipe, known=strategy_names())
            found.append((name, spec, summary))
        except Mt2stError as error:
            missing.append(f"{name}: {error}")
    suffix = "" if recipe == "default" else f"-{recipe}"
    path, board = results / f"TABLE{suffix}.md", results / f"leaderboard{suffix}.html"
    console = Console()
    page = all_cases_page(found, missing)
    write_text(path, page_to_markdown(page))
    command = "python -m benchmarks all --only-table"
    command += f" --recipe {recipe.removesuffix('-smoke')}" if recipe.removesuffix("-smoke") != "default" else ""
    command += " --smoke" if recipe.endswith("-smoke") else ""
    write_html(leaderboard_page(found, missing, command), [], board)
    print_page(page, console)
    console.print(f"table: {path}", markup=False, highlight=False, soft_wrap=True)
    print_finding(page, board, console)
    return bool(missing) or any(row.holes for _, _, summary in found for row in summary.rows)
