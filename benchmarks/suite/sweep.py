"""A sweep: the primary metric against training FLOPs, over budgets, switch points and Diminish rates, with the Pareto
front.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.records.read import RunRecord, load_records
from benchmarks.report.spec import ReportSpec
from benchmarks.report.statistics import pareto_front
from benchmarks.strategies import EQUAL_BUDGET, STRATEGY_KNOBS
from benchmarks.suite.runner import Case, Planned, StepCosts, execute, plan_runs, run_folder
from mt2st.files import atomic_path, write_text

# Okabe and Ito's palette, which colour-blind readers can tell apart; a marker for each strategy besides.
_LOOKS = {
    "STL": ("#000000", "o"),
    "MTL": ("#0072B2", "s"),
    "Diminish": ("#E69F00", "^"),
    "Switch": ("#009E73", "D"),
    "Sampled Diminish": ("#CC79A7", "v"),
}


@dataclass(frozen=True)
class Point:
    """One setting at one budget: mean over seeds."""

    strategy: str
    setting: str
    budget_share: float
    flops: float
    value: float
    seeds: int


def run_sweep(
    case: Case, knobs: Any, spec: ReportSpec, *, benchmark: str, recipe: str, results: Path, console: Console
) -> int:
    """Run every setting at every budget, then write SWEEP.md and sweep.png from the records.

    0, or 1 if a run failed.
    """
    costs = StepCosts(case.build(0))
    plan: list[Planned] = []
    for share in knobs.sweep_budgets:
        for name, settings in variants(knobs):
            changed = replace(
                knobs, strategies=(name,), views=(EQUAL_BUDGET,), budget_share=share, **{STRATEGY_KNOBS[name]: settings}
            )
            for run in plan_runs(changed, costs):
                folder = run_folder(
                    case, changed, run, benchmark=benchmark, recipe=recipe, results=results, varied=("budget_share",)
                )
                plan.append(Planned(changed, run, folder))
    failed = execute(case, plan, costs, console)
    suite_hash = plan[0].folder.identity["suite_hash"]
    records = load_records(results, benchmark, recipe, suite_hash=suite_hash)
    wanted = {planned.folder.name for planned in plan}
    points = sweep_points([record for record in records.finished if record.folder.name in wanted], spec)
    write_sweep(results / benchmark / recipe, points, spec, console)
    return 1 if failed else 0


def variants(knobs: Any) -> list[tuple[str, Any]]:
    """The settings to compare: STL and MTL as tuned, Switch at every point, both Diminish at every rate."""
    found: list[tuple[str, Any]] = [("STL", knobs.stl), ("MTL", knobs.mtl)]
    found += [("Switch", replace(knobs.switch, at=at)) for at in knobs.sweep_switch_points]
    found += [("Diminish", replace(knobs.diminish, rate=rate)) for rate in knobs.sweep_rates]
    found += [("Sampled Diminish", replace(knobs.sampled, rate=rate)) for rate in knobs.sweep_rates]
    return found


def sweep_points(records: Sequence[RunRecord], spec: ReportSpec) -> list[Point]:
    """Means over seeds, one for each setting and budget."""
    groups: dict[tuple[str, str, float], list[RunRecord]] = defaultdict(list)
    for record in records:
        config = record.values["config"]
        groups[
            record.strategy, setting_text(record.strategy, config["strategy"]), config["knobs"]["budget_share"]
        ].append(record)
    points = []
    for (strategy, setting, share), members in sorted(groups.items()):
        values = [record.values["metrics"]["test"][spec.primary.id] for record in members]
        flops = sum(record.training_flops for record in members) / len(members)
        points.append(Point(strategy, setting, share, flops, sum(values) / len(values), len(members)))
    return points


def setting_text(strategy: str, settings: Mapping[str, Any]) -> str:
    """What a sweep varies of a strategy: "at 0.5", "rate 6"."""
    if "at" in settings:
        return f"at {settings['at']:g}"
    return f"rate {settings['rate']:g}" if "rate" in settings else ""


def write_sweep(folder: Path, points: Sequence[Point], spec: ReportSpec, console: Console) -> None:
    """SWEEP.md, sweep.png and the table on the terminal."""
    metric = spec.primary
    front = set(
        pareto_front([(point.flops, point.value) for point in points], higher_is_better=metric.higher_is_better)
    )
    header = (
        "strategy",
        "setting",
        "budget",
        "TFLOPs",
        f"{metric.label} ({metric.unit})" if metric.unit else metric.label,
        "seeds",
        "Pareto",
    )
    rows = [
        (
            point.strategy,
            point.setting,
            f"{point.budget_share:g} × MTL",
            f"{point.flops / 1e12:.3f}",
            metric.text(point.value),
            str(point.seeds),
            "front" if index in front else "",
        )
        for index, point in enumerate(points)
    ]
    table = Table(title=f"{spec.title}: sweep")
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    lines = [
        f"# {spec.title}: sweep",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    write_text(folder / "SWEEP.md", "\n".join(lines) + "\n")
    draw(folder / "sweep.png", points, sorted(front, key=lambda index: points[index].flops), spec)
    console.print(f"table: {folder / 'SWEEP.md'}\npicture: {folder / 'sweep.png'}\nrecords: {folder}", highlight=False)


def draw(path: Path, points: Sequence[Point], front: Sequence[int], spec: ReportSpec) -> None:
    """The points by strategy, with the front as a line."""
    from matplotlib.figure import Figure

    metric = spec.primary
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axis = figure.subplots()
    for strategy, (colour, marker) in _LOOKS.items():
        own = [point for point in points if point.strategy == strategy]
        if own:
            horizontal = [point.flops / 1e12 for point in own]
            vertical = [point.value * metric.scale for point in own]
            axis.scatter(horizontal, vertical, color=colour, marker=marker, s=36, label=strategy, alpha=0.85, zorder=3)
    axis.step(
        [points[index].flops / 1e12 for index in front],
        [points[index].value * metric.scale for index in front],
        where="post",
        color="#999999",
        linewidth=1,
        label="Pareto front",
    )
    axis.set_xlabel("training TFLOPs")
    axis.set_ylabel(f"{metric.label} ({metric.unit})" if metric.unit else metric.label)
    axis.set_title(f"{spec.title}: sweep", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
