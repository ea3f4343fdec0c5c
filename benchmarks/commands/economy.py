"""economy: what each knob that makes batches cheaper, freezes or averages does to a case, alone and with Switch."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.cases import load_card
from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.options import parser_of
from benchmarks.speed.options import ECONOMIES, with_economy
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.switch import Switching
from mt2st.errors import Mt2stError, check_range, unknown_name


def main(argv: list[str]) -> int:
    """Entry point; returns 1 if a run failed, else 0."""
    parser = parser_of(
        "economy",
        "Run a case with each economy, under MTL (the economy alone) and under Switch, at equal steps, and write one "
        "table: quality against FLOPs. The same command goes on with what is not finished.",
    )
    parser.add_argument("--case", default="vqa", help="case (default: vqa)")
    parser.add_argument("--recipe", default="default", help="its recipe (default: default)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each (default: 3)")
    both = [MultiTask.name, Switching.name]
    parser.add_argument("--strategies", nargs="+", default=both, help=f"strategies (default: {' '.join(both)})")
    parser.add_argument(
        "--economies", nargs="+", default=list(ECONOMIES), help=f"which ones (default: {' '.join(ECONOMIES)})"
    )
    parser.add_argument("--steps", type=int, help="optimiser steps of every run (default: the recipe's)")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time (default: 0 = as many as fit)")
    parser.add_argument("--smoke", action="store_true", help="the case in small, for a first look")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the records")
    parser.add_argument("--only-table", action="store_true", help="run nothing; write the table from what there is")
    options = parser.parse_args(argv)
    check_range("--seeds", options.seeds, 1, 10_000)
    for name in options.economies:
        if name not in ECONOMIES:
            raise unknown_name("economy", name, ECONOMIES)
    card = load_card(options.case)
    base = replace(
        card.knobs(options.recipe, smoke=options.smoke),
        strategies=tuple(options.strategies),
        views=("equal-steps",),
        where=JobKnobs(jobs=options.jobs),
    )
    base = replace(base, seeds=options.seeds, steps=base.steps if options.steps is None else options.steps)
    place, failed = options.results / "economy", False
    for name in [] if options.only_table else options.economies:
        from benchmarks.commands._case import run_case

        sys.stdout.write(f"== economy: {name}\n")
        sys.stdout.flush()
        try:
            failed |= run_case(card, with_economy(base, name), options.recipe, place / name) != 0
        except (Mt2stError, OSError) as error:  # one that cannot run must not keep the others from running
            sys.stderr.write(f"error: {name}: {' '.join(str(error).split()) or type(error).__name__}\n")
            failed = True
    from benchmarks.speed.economy import write_table

    holes = write_table(place, options.case, options.recipe, options.economies, card.spec)
    return 1 if failed or holes else 0
