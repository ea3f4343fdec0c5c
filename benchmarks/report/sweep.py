"""A sweep: the primary metric against training FLOPs, over budgets and strategies' settings, with the Pareto front."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.records.read import RunRecord, load_records
from benchmarks.report.spec import ReportSpec
from benchmarks.report.statistics import pareto_front
from benchmarks.report.style import FRONT_COLOUR, looks
from benchmarks.report.text_table import TextTable, print_tables, to_markdown
from mt2st.files import atomic_path, write_text


@dataclass(frozen=True)
class Point:
    """One setting at one budget: mean over seeds."""

    strategy: str
    setting: str
    budget_share: float
    flops: float
    value: float
    seeds: int


def write_sweep(
    results: Path,
    benchmark: str,
    recipe: str,
    *,
    suite_hash: str,
    runs: Collection[str],
    spec: ReportSpec,
    known: Sequence[str],
    console: Console,
) -> None:
    """SWEEP.md, sweep.png and the table on the terminal, from the records of the runs with these ids.

    Args:
        known: the built-in strategies in the order of their table, which looks follow.
    """
    folder = results / benchmark / recipe
    records = load_records(results, benchmark, recipe, suite_hash=suite_hash)
    points = sweep_points([record for record in records.finished if record.folder.name in runs], spec)
    costs = [(point.flops, point.value) for point in points]
    front = pareto_front(costs, higher_is_better=spec.primary.higher_is_better)
    head = ("strategy", "setting", "budget", "TFLOPs", spec.primary.heading, "seeds", "Pareto")
    body = tuple(
        (
            point.strategy,
            point.setting,
            f"{point.budget_share:g} × MTL",
            f"{point.flops / 1e12:.3f}",
            spec.primary.text(point.value),
            str(point.seeds),
            "front" if index in front else "",
        )
        for index, point in enumerate(points)
    )
    table = TextTable(f"{spec.title}: sweep", head, body)
    print_tables([table], console)
    write_text(folder / "SWEEP.md", to_markdown(table) + "\n")
    sweep_picture(folder / "sweep.png", points, front, spec, known)
    console.print(f"table: {folder / 'SWEEP.md'}\npicture: {folder / 'sweep.png'}\nrecords: {folder}", highlight=False)


def sweep_points(records: Sequence[RunRecord], spec: ReportSpec) -> list[Point]:
    """Means over seeds, one for each setting and budget."""
    varied = _varied(records)
    groups: dict[tuple[str, str, float], list[RunRecord]] = defaultdict(list)
    for record in records:
        config = record.values["config"]
        setting = ", ".join(f"{name} {_text(config['strategy'][name])}" for name in varied[record.strategy])
        groups[record.strategy, setting, config["knobs"]["budget_share"]].append(record)
    points = []
    for (strategy, setting, share), members in sorted(groups.items()):
        values = [record.values["metrics"]["test"][spec.primary.id] for record in members]
        flops = sum(record.training_flops for record in members) / len(members)
        points.append(Point(strategy, setting, share, flops, sum(values) / len(values), len(members)))
    return points


def sweep_picture(
    path: Path, points: Sequence[Point], front: Sequence[int], spec: ReportSpec, known: Sequence[str]
) -> None:
    """Draw the points by strategy, and the front, indices by rising FLOPs, as a line."""
    metric = spec.primary
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    look = looks([point.strategy for point in points], known)
    for strategy in dict.fromkeys(point.strategy for point in points):
        own = [point for point in points if point.strategy == strategy]
        colour, marker = look[strategy]
        axes.scatter(
            [point.flops / 1e12 for point in own],
            [point.value * metric.scale for point in own],
            color=colour,
            marker=marker,
            s=36,
            label=strategy,
            alpha=0.85,
            zorder=3,
        )
    axes.step(
        [points[index].flops / 1e12 for index in front],
        [points[index].value * metric.scale for index in front],
        where="post",
        color=FRONT_COLOUR,
        linewidth=1,
        label="Pareto front",
    )
    axes.set(xlabel="training TFLOPs", ylabel=metric.heading)
    axes.set_title(f"{spec.title}: sweep", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=130)


def _varied(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """The settings that differ between the runs of a strategy, by strategy."""
    found: dict[str, list[str]] = {}
    for strategy in {record.strategy for record in records}:
        settings = [record.values["config"]["strategy"] for record in records if record.strategy == strategy]
        found[strategy] = [
            name for name in settings[0] if any(other.get(name) != settings[0][name] for other in settings)
        ]
    return found


def _text(value: Any) -> str:
    """A setting in short: "0.5", or "contrastive=0.7 masked_lm=0.3"."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={number:g}" for name, number in value.items())
    return f"{value:g}" if isinstance(value, int | float) else str(value)
