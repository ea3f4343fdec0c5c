"""all: run every case, then one table of case × strategy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cases import CaseCard, case_names, load_card
from benchmarks.options import parser_of
from mt2st.errors import Mt2stError, unknown_name

if TYPE_CHECKING:
    from benchmarks.report.tables import TextTable

TABLE_FILE = "TABLE.md"


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a case or a run failed, else 0."""
    parser = parser_of("all", "Run every case with its default recipe, then write one table: case × strategy.")
    parser.add_argument("--smoke", action="store_true", help="every case in small, for a first look")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the records (default: results)"
    )
    parser.add_argument("--cases", nargs="+", default=None, metavar="CASE", help="only these cases (default: all)")
    parser.add_argument("--recipe", default="default", help="recipe of every case (default: default)")
    parser.add_argument(
        "--only-table", action="store_true", help="run nothing; only write the table from the records there are"
    )
    options = parser.parse_args(argv)
    names = options.cases or case_names()
    for name in names:
        if name not in case_names():
            raise unknown_name("case", name, case_names())
    recipe = f"{options.recipe}-smoke" if options.smoke else options.recipe
    from benchmarks.suite.runner import run_case

    failed = False
    for number, name in enumerate([] if options.only_table else names, start=1):
        sys.stdout.write(f"== case {number} of {len(names)}: {name}\n")
        sys.stdout.flush()
        try:
            case = load_card(name)
            knobs = case.knobs(options.recipe, smoke=options.smoke)
            failed |= run_case(case, knobs, recipe, options.results) != 0
        except (
            Mt2stError,
            OSError,
            ImportError,
            RuntimeError,
        ) as error:  # one case that cannot run must not keep the others from running
            sys.stderr.write(f"error: {name}: {' '.join(str(error).split()) or type(error).__name__}\n")
            failed = True
    return 1 if write_table(names, recipe, options.results) or failed else 0


def write_table(names: list[str], recipe: str, results: Path) -> bool:
    """Write and print the table of all cases that have records; returns whether there are holes."""
    from rich.console import Console

    from benchmarks.records.read import load_records
    from benchmarks.report.summary import Summary, summarise
    from benchmarks.report.tables import to_markdown, to_rich
    from mt2st.files import write_text

    found: list[tuple[CaseCard, Summary]] = []
    missing = []
    for name in names:
        try:
            case = load_card(name)
            records = load_records(results, name, recipe)
            found.append((case, summarise(records, case.spec, benchmark=name, recipe=recipe)))
        except Mt2stError as error:
            missing.append(f"{name}: {error}")
    table = table_of_cases(found)
    console = Console()
    for part in to_rich(table, console.width):
        console.print(part)
    remarks = [f"{summary.benchmark}: {remark}" for _, summary in found for remark in summary.remarks] + missing
    for remark in remarks:
        console.print(f"! {remark}", markup=False, highlight=False, soft_wrap=True)
    path = results / (TABLE_FILE if recipe == "default" else f"TABLE-{recipe}.md")
    lines = [f"- {' '.join(remark.split()).replace('<', '&lt;')}" for remark in remarks]
    write_text(path, "\n".join([to_markdown(table), *lines]) + "\n")
    console.print(f"table: {path}", markup=False, highlight=False, soft_wrap=True)
    return bool(missing) or any(row.holes for _, summary in found for row in summary.rows)


def table_of_cases(found: list) -> TextTable:
    """Case × strategy → quality with interval and difference to MTL at equal budget and at equal steps, FLOPs, saving.

    Args:
        found: pairs of case and summary.
    """
    from benchmarks.report.rows import EQUAL_BUDGET, EQUAL_STEPS
    from benchmarks.report.tables import (
        NOTHING,
        TextTable,
        difference_text,
        flops_text,
        flops_unit,
        interval_text,
        with_unit,
    )

    head = (
        "case",
        "metric",
        "strategy",
        "equal budget (95 %)",
        "Δ to MTL",
        "equal steps (95 %)",
        "Δ to MTL",
        "training FLOPs",
        "saved",
        "limit",
    )
    body = []
    for case, summary in found:
        metric = case.spec.primary
        unit = flops_unit([row.flops for row in summary.of_view(EQUAL_STEPS)])
        labels = (summary.benchmark, with_unit(metric) + ("" if metric.higher_is_better else " ↓"))
        for strategy in dict.fromkeys(row.strategy for row in summary.rows):
            budget = next((row for row in summary.of_view(EQUAL_BUDGET) if row.strategy == strategy), None)
            steps = next((row for row in summary.of_view(EQUAL_STEPS) if row.strategy == strategy), None)
            cells = [*labels, strategy]
            labels = ("", "")  # said once a case
            for row in (budget, steps):
                cells += (
                    [interval_text(row.primary, metric), difference_text(row.to_multi, metric)]
                    if row
                    else [NOTHING, NOTHING]
                )
            cells.append(NOTHING if steps is None or steps.flops is None else f"{flops_text(steps.flops, unit)} {unit}")
            cells.append(
                NOTHING if steps is None or steps.compression_multi is None else f"{steps.compression_multi:.0%}"
            )
            cells.append(NOTHING if summary.limit is None else f"{summary.limit:.0%}")
            body.append(tuple(cells))
        for floor, values in summary.floors.items():
            if metric.id in values:
                value = metric.text(values[metric.id])
                body.append(("", "", f"floor: {floor}", value, NOTHING, value, *[NOTHING] * (len(head) - 6)))
    caption = (
        "Means over seeds with 95 % intervals; differences paired by seed and item; ↓ lower is better. Training FLOPs "
        "and the "
        "share saved of MTL's are those at equal steps; limit = the auxiliaries' share of MTL's FLOPs."
    )
    return TextTable("All cases", head, tuple(body), caption)
