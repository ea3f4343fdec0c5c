"""The table of `python -m benchmarks economy`: quality against FLOPs, each economy beside none, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from benchmarks.records.machine import environment
from benchmarks.records.read import RunRecord, load_records
from benchmarks.report.spec import ReportSpec
from benchmarks.report.text_table import TextTable, print_tables, to_markdown
from benchmarks.speed.options import NO_ECONOMY
from mt2st.errors import Mt2stError
from mt2st.files import write_sealed_json, write_text


def write_table(place: Path, case: str, recipe: str, economies: Sequence[str], spec: ReportSpec) -> bool:
    """Write and print the table and its record from the runs under `place`/ECONOMY; returns whether there are holes.

    Raises:
        Mt2stError: no economy has a finished run.
    """
    rows: list[dict[str, Any]] = []
    holes = False
    for name in economies:
        try:
            found = load_records(place / name, case, recipe)
        except Mt2stError:
            holes = True
            continue
        holes |= bool(found.holes)
        rows += rows_of(name, found.finished, spec.primary.id)
    if not rows:
        raise Mt2stError(f"{place} holds no finished run of {case}; run the command without --only-table")
    for row in rows:
        row |= against_none(row, rows)
    higher = "" if spec.primary.higher_is_better else ", lower is better"
    table = TextTable(
        f"{case}: economies, {spec.primary.id}{higher}",
        (
            "strategy, economy",
            "mean",
            "smallest … largest",
            "difference, seed by seed",
            "FLOPs",
            "of none's",
            "seconds",
        ),
        tuple(_cells(row) for row in rows),
        f"Equal steps; {max(len(row['seeds']) for row in rows)} seeds. A difference is to the same strategy without an "
        "economy: its mean, and the smallest and largest over seeds. FLOPs are those of training.",
    )
    write_sealed_json(place / f"{case}-{recipe}.json", {**environment(), "schema_version": 1, "rows": rows})
    write_text(place / f"{case}-{recipe}.md", to_markdown(table))
    print_tables([table], Console())
    return holes


def rows_of(economy: str, runs: Sequence[RunRecord], metric: str) -> list[dict[str, Any]]:
    """A row a strategy: its values by seed, mean training FLOPs, mean seconds of training."""
    rows = []
    for strategy in dict.fromkeys(run.strategy for run in runs):
        own = sorted((run for run in runs if run.strategy == strategy), key=lambda run: run.seed)
        values = {str(run.seed): run.metric(metric) for run in own}
        rows.append(
            {
                "strategy": strategy,
                "economy": economy,
                "seeds": {seed: value for seed, value in values.items() if value is not None},
                "flops": mean(run.training_flops for run in own),
                "optimiser_flops": mean(float(run.values["flops"].get("optimiser", 0)) for run in own),
                "train_seconds": mean(float(run.values["phases_seconds"]["train"]) for run in own),
            }
        )
    return rows


def against_none(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How a row stands to the same strategy without an economy: differences by seed, share of its FLOPs; {} without."""
    base = next((each for each in rows if each["strategy"] == row["strategy"] and each["economy"] == NO_ECONOMY), None)
    if base is None or base is row:
        return {}
    both = sorted(set(row["seeds"]) & set(base["seeds"]), key=int)
    differences = [row["seeds"][seed] - base["seeds"][seed] for seed in both]
    return {"differences": differences, "share_of_flops": row["flops"] / base["flops"]}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    values = list(row["seeds"].values())
    differences = row.get("differences")
    return (
        f"{row['strategy']}, {row['economy']}",
        f"{mean(values):.4f}",
        f"{min(values):.4f} … {max(values):.4f}",
        f"{mean(differences):+.4f} [{min(differences):+.4f}, {max(differences):+.4f}]" if differences else "–",
        f"{row['flops'] / 1e12:.3f} T",
        f"{row['share_of_flops']:.2f}" if "share_of_flops" in row else "–",
        f"{row['train_seconds']:.0f}",
    )
