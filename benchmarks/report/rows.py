"""A row of the report: one strategy in one view, what it reached and what it cost, with intervals; and all of them.

From records alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from benchmarks.records.read import Hole, RunRecord
from benchmarks.report.costs import COSTS
from benchmarks.report.families import holm
from benchmarks.report.resampling import Resampled, resample
from benchmarks.report.spec import Metric, ReportSpec
from benchmarks.report.statistics import (
    Method,
    bootstrap,
    compression,
    first_to_reach,
    paired_bootstrap,
    seed_difference,
    seed_interval,
)
from benchmarks.report.student import Interval, p_value
from benchmarks.report.verdict import IsoQuality
from benchmarks.report.views import EQUAL_STEPS, MULTI_TASK, SINGLE_TASK, budget_view, fair_view, is_budget
from mt2st.errors import Mt2stError

Places = Mapping[tuple[str, str], list[RunRecord]]  # (view, strategy) → finished runs by seed


class Way(NamedTuple):
    """How intervals are made: kind of the bootstrap interval, and its confidence."""

    method: Method = "student"
    confidence: float = 0.95


@dataclass(frozen=True)
class Reach:
    """Training FLOPs to a validation score: mean over the seeds that reached it, and how many of all did."""

    target: float
    reached: int
    seeds: int
    flops: float | None


@dataclass(frozen=True)
class FrozenPass:
    """What it cost to run a frozen tower over all its inputs; in no run's FLOPs or seconds.

    Attributes:
        passes: distinct ones: other weights or other inputs make another one.
        items: inputs of all passes.
    """

    passes: int
    items: int
    flops: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Row:
    """A strategy in a view. Steps and FLOPs are means over seeds; FLOPs are training FLOPs.

    Attributes:
        primary: the primary metric; None where no seed finished.
        columns: further metrics by id, where the runs have them.
        to_single, to_multi: difference of the primary metric to STL and to MTL of the same view, paired by seed and
            item.
        to_full_multi: in the view of a budget, the difference to MTL of the equal-steps view, which ran to its full
            length.
        adjusted_p: "to_single", "to_multi", "to_full_multi" → p-value of the difference after Holm's correction over
            the strategies of the view, and for the looks at the seeds; NaN where there is none.
        compression_multi, compression_single: 1 − FLOPs / MTL's (STL's), only where both ran the same number of steps.
        saved_of_full_multi: 1 − FLOPs / full-length MTL's, in the view of a budget.
        reach: FLOPs to MTL's final validation score (mean over MTL's seeds in the same view).
        groups: item array → name of the kind → the primary metric on its items.
        costs: what it cost besides, by the names of `COSTS`.
        points: (seed, training FLOPs, primary metric) of each finished run.
    """

    view: str
    strategy: str
    seeds: tuple[int, ...]
    holes: tuple[Hole, ...]
    primary: Interval | None = None
    columns: Mapping[str, Interval] = field(default_factory=dict)
    to_single: Interval | None = None
    to_multi: Interval | None = None
    to_full_multi: Interval | None = None
    adjusted_p: Mapping[str, float] = field(default_factory=dict)
    compression_multi: float | None = None
    compression_single: float | None = None
    saved_of_full_multi: float | None = None
    reach: Reach | None = None
    groups: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    steps: float | None = None
    flops: float | None = None
    costs: Mapping[str, float | None] = field(default_factory=lambda: {cost.name: None for cost in COSTS})
    points: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True)
class Summary:
    """Everything a report shows, as plain values.

    Attributes:
        rows: by view (the fair one first) and strategy.
        limit: auxiliaries' share of MTL's training FLOPs at equal steps: no strategy can save more there. None without
            MTL.
        floors: floor → metric id → value.
        front: indices of `rows` on the Pareto front of training FLOPs and primary metric, over all views.
        remarks: what a reader must know of these records: missing seeds, mixed commits or data, suites left out.
        provenance: label → text: data, draw, model, machine, versions, commit.
        schedules: strategy → auxiliary → its schedule as text; empty where the records hold none.
        frozen: part → what it cost to run its frozen tower once, for all runs together.
        known: the built-in strategies in the order of their table, which rows and looks follow.
        iso: quality against FLOPs, and the verdict; None without full MTL.
        confidence: of every interval; above 0.95 where seeds were added until the claim was decided.
    """

    benchmark: str
    recipe: str
    suite_hash: str
    rows: tuple[Row, ...]
    limit: float | None
    floors: Mapping[str, Mapping[str, float]]
    front: tuple[int, ...]
    remarks: tuple[str, ...]
    provenance: Mapping[str, str]
    schedules: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    frozen: Mapping[str, FrozenPass] = field(default_factory=dict)
    known: tuple[str, ...] = ()
    iso: IsoQuality | None = None
    confidence: float = 0.95

    @property
    def level(self) -> str:
        """The confidence of every interval as text: "95 %", "98.75 %"."""
        return f"{100 * self.confidence:.4g} %"

    @property
    def views(self) -> tuple[str, ...]:
        """Views in the order in which they are shown."""
        return tuple(dict.fromkeys(row.view for row in self.rows))

    def of_view(self, view: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.view == view)

    def as_json(self) -> dict[str, Any]:
        """Plain values for summary.json: costs beside other numbers, holes without their folders' absolute place."""
        value = asdict(replace(self, iso=None))
        del value["known"], value["confidence"]
        if not value["frozen"]:
            del value["frozen"]
        value["iso"] = self.iso.as_json() if self.iso else None
        for row in value["rows"]:
            for hole in row["holes"]:
                hole["folder"] = hole["folder"].name
            points = row.pop("points")
            costs = {name: cost for name, cost in row.pop("costs").items() if cost is not None}
            row |= costs | {"points": points}
        return value


def build_row(
    view: str,
    strategy: str,
    by_place: Places,
    holes: Iterable[Hole],
    spec: ReportSpec,
    way: Way,
) -> Row:
    mine = tuple(hole for hole in holes if hole.strategy == strategy and view in hole.views)
    runs = by_place.get((view, strategy), [])
    if not runs:
        return Row(view, strategy, (), mine)
    metric = spec.primary
    single, multi = by_place.get((view, SINGLE_TASK), []), by_place.get((view, MULTI_TASK), [])
    whole = by_place.get((EQUAL_STEPS, MULTI_TASK), []) or by_place.get((budget_view(1.0), MULTI_TASK), [])
    full = whole if is_budget(view) else []
    primary = _estimate(runs, metric, way)
    if primary is None:
        raise Mt2stError(
            f"{runs[0].folder} has no {metric.id!r} among its metrics; the recipe's ReportSpec and its runs disagree"
        )
    columns = {column.id: _estimate(runs, column, way) for column in spec.columns}
    values = [run.values for run in runs]
    return Row(
        view=view,
        strategy=strategy,
        seeds=tuple(run.seed for run in runs),
        holes=mine,
        primary=primary,
        columns={name: interval for name, interval in columns.items() if interval is not None},
        to_single=_difference(runs, single, metric, way),
        to_multi=_difference(runs, multi, metric, way),
        to_full_multi=_difference(runs, full, metric, way),
        compression_multi=_compression(runs, multi),
        compression_single=_compression(runs, single),
        saved_of_full_multi=compression(_mean_flops(runs), _mean_flops(full)) if full else None,
        reach=_reach(runs, multi, spec),
        groups={group.array: _by_group(runs, group.array, metric, way) for group in spec.groups},
        steps=float(np.mean([run.steps for run in runs])),
        flops=_mean_flops(runs),
        costs={cost.name: cost.of(values, [run.values for run in full or multi]) for cost in COSTS},
        points=tuple((run.seed, run.training_flops, _point(run, metric)) for run in runs),
    )


def _arrays(run: RunRecord, metric: Metric) -> list[np.ndarray] | None:
    """The arrays that the metric's statistic takes, [N] each; None where the metric or the run has no items."""
    if not metric.arrays or any(name not in run.items for name in metric.arrays):
        return None
    arrays = [run.items[name] for name in metric.arrays]
    return [np.asarray(metric.transform(*arrays))] if metric.transform is not None else arrays


def _point(run: RunRecord, metric: Metric) -> float:
    arrays = _arrays(run, metric)
    if arrays is None:
        value = run.metric(metric.id)
        return float("nan") if value is None else value
    if metric.statistic == "mean":
        return float(arrays[0].mean(dtype=np.float64))
    return float(np.median(arrays[0])) if metric.statistic == "median" else float(_function(metric)(*arrays))


def _function(metric: Metric) -> Callable[..., float]:
    if not callable(metric.statistic):
        raise Mt2stError(
            f"Metric({metric.id!r}).statistic = {metric.statistic!r} must be 'mean', 'median' or a function"
        )
    return metric.statistic


def _clusters(runs: Sequence[RunRecord], metric: Metric) -> np.ndarray | None:
    """The cluster of each of the metric's items, [N], the same for all runs; None where items are independent.

    Raises:
        Mt2stError: runs disagree, so their items are not the same ones.
    """
    first = runs[0].items.get(metric.cluster)
    for run in runs[1:]:
        own = run.items.get(metric.cluster)
        if not np.array_equal(own, first) if own is not None and first is not None else own is not first:
            raise Mt2stError(
                f"{run.folder} and {runs[0].folder} have different arrays {metric.cluster!r}: they were tested on "
                "different items, or by different versions; repeat the older runs"
            )
    if first is None or not metric.arrays or len(first) != len(runs[0].items[metric.arrays[0]]):
        return None  # items of another kind, such as images where captions have clusters
    return first


def resampled_runs(runs: Sequence[RunRecord], metric: Metric) -> Resampled:
    """The metric of each run on all items and on resamples, the same for all; without items, on all items alone."""
    arrays = [items for run in runs if (items := _arrays(run, metric)) is not None]
    if len(arrays) == len(runs):
        return resample(arrays, metric.statistic, _clusters(runs, metric))
    point = np.array([_point(run, metric) for run in runs])
    return Resampled(point, np.tile(point, (2, 1)), 0)


def _estimate(runs: Sequence[RunRecord], metric: Metric, way: Way) -> Interval | None:
    arrays = [_arrays(run, metric) for run in runs]
    if with_items := [items for items in arrays if items is not None]:
        if len(with_items) < len(runs):
            raise Mt2stError(
                f"some runs of {runs[0].folder.parent} lack the item arrays {metric.arrays}; repeat those runs"
            )
        return bootstrap(with_items, metric.statistic, clusters=_clusters(runs, metric), **way._asdict())
    values = [run.metric(metric.id) for run in runs]
    known = [value for value in values if value is not None]
    return seed_interval(known, confidence=way.confidence) if known else None


def _difference(runs: Sequence[RunRecord], reference: Sequence[RunRecord], metric: Metric, way: Way) -> Interval | None:
    """Paired over the seeds that both have; None without common seeds, and for a strategy against itself."""
    others = {run.seed: run for run in reference}
    pairs = [(run, others[run.seed]) for run in runs if run.seed in others]
    if not pairs or all(left is right for left, right in pairs):
        return None
    left, right = [_arrays(run, metric) for run, _ in pairs], [_arrays(run, metric) for _, run in pairs]
    left_items, right_items = (
        [items for items in left if items is not None],
        [items for items in right if items is not None],
    )
    if len(left_items) == len(right_items) == len(pairs):
        clusters = _clusters([run for pair in pairs for run in pair], metric)
        return paired_bootstrap(left_items, right_items, metric.statistic, clusters=clusters, **way._asdict())
    values = [(a.metric(metric.id), b.metric(metric.id)) for a, b in pairs]
    known = [(a, b) for a, b in values if a is not None and b is not None]
    if not known:
        return None
    return seed_difference([a for a, _ in known], [b for _, b in known], confidence=way.confidence)


def _by_group(runs: Sequence[RunRecord], array: str, metric: Metric, way: Way) -> dict[str, Interval]:
    """The primary metric on the items of each kind, by the kinds' names in order of their codes."""
    if any(array not in run.items for run in runs):
        return {}
    codes = runs[0].items[array]
    names = runs[0].values.get("group_names", {}).get(array, [])
    clusters = _clusters(runs, metric)
    found = {}
    for code in np.unique(codes):
        chosen = codes == code
        arrays = [_arrays(run, metric) for run in runs]
        parts = [[one[chosen] for one in items] for items in arrays if items is not None]
        if parts:
            name = str(names[code]) if 0 <= code < len(names) else str(code)
            own = clusters[chosen] if clusters is not None else None
            if own is not None and len(np.unique(own)) < 2:
                continue  # nothing says how clusters of this kind vary
            found[name] = bootstrap(parts, metric.statistic, clusters=own, **way._asdict())
    return found


# -- costs -------------------------------------------------------------------------------------------------------------


def _mean_flops(runs: Sequence[RunRecord]) -> float:
    return float(np.mean([run.training_flops for run in runs]))


def _compression(runs: Sequence[RunRecord], reference: Sequence[RunRecord]) -> float | None:
    if not reference or {run.steps for run in runs} != {run.steps for run in reference}:
        return None
    return compression(_mean_flops(runs), _mean_flops(reference))


def saving_limit(by_place: Places) -> float | None:
    """1 − what the primary task alone costs / what MTL costs, at MTL's number of steps."""
    shares = []
    fair = fair_view(view for view, _ in by_place)
    for run in by_place.get((EQUAL_STEPS, MULTI_TASK), []) or by_place.get((fair or "", MULTI_TASK), []):
        recorded = run.values.get("auxiliary_share_of_mtl_flops")
        if recorded is not None:
            shares.append(float(recorded))
            continue
        per_step = run.values["flops"].get("primary_per_step")
        if per_step is not None and run.training_flops > 0:
            shares.append(1.0 - per_step * run.steps / run.training_flops)
    if shares:
        return float(np.mean(shares))
    single, multi = by_place.get((EQUAL_STEPS, SINGLE_TASK), []), by_place.get((EQUAL_STEPS, MULTI_TASK), [])
    return _compression(single, multi) if single else None


def with_families(rows: Sequence[Row], confidence: float) -> list[Row]:
    """The rows of one view, with the p-values of each column of differences corrected as one family.

    `confidence` is that of the intervals: this look may spend 1 − it of the 5 %, and p-values grow by as much.
    """
    columns, share = ("to_single", "to_multi", "to_full_multi"), round((1 - confidence) / 0.05, 12)
    raw = {name: [p_value(found) if (found := getattr(row, name)) else math.nan for row in rows] for name in columns}
    adjusted = {name: [p if math.isnan(p) else min(1.0, p / share) for p in holm(found)] for name, found in raw.items()}
    return [
        replace(row, adjusted_p={name: values[place] for name, values in adjusted.items()})
        for place, row in enumerate(rows)
    ]


def curve_of(run: RunRecord, metric_id: str) -> list[tuple[float, float]]:
    """(training FLOPs, validation score) of each evaluation that has the metric, by rising FLOPs."""
    points = []
    for entry in run.curve:
        value = entry.get(metric_id, entry.get("metrics", {}).get(metric_id))
        if value is not None and entry.get("flops") is not None:
            points.append((float(entry["flops"]), float(value)))
    return sorted(points, key=lambda point: point[0])


def _final_validation(run: RunRecord, metric_id: str) -> float | None:
    value = run.metric(metric_id, "validation")
    if value is not None:
        return value
    points = curve_of(run, metric_id)
    return points[-1][1] if points else None


def _reach(runs: Sequence[RunRecord], multi: Sequence[RunRecord], spec: ReportSpec) -> Reach | None:
    finals = [value for run in multi if (value := _final_validation(run, spec.validation_id)) is not None]
    if not finals:
        return None
    target = float(np.mean(finals))
    higher = spec.primary.higher_is_better
    costs = [first_to_reach(curve_of(run, spec.validation_id), target, higher_is_better=higher) for run in runs]
    known = [cost for cost in costs if cost is not None]
    return Reach(target, len(known), len(runs), float(np.mean(known)) if known else None)
