"""From records to a summary: per view and strategy, what was reached, at what cost, with intervals. No display."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.records.check import LEFT_IN
from benchmarks.records.machine import describe
from benchmarks.records.read import Hole, Records, RunRecord
from benchmarks.report.families import confidence_of_look
from benchmarks.report.rows import (
    FrozenPass,
    Places,
    Row,
    Summary,
    Way,
    build_row,
    resampled_runs,
    saving_limit,
    with_families,
)
from benchmarks.report.spec import ReportSpec
from benchmarks.report.statistics import Method, pareto_front
from benchmarks.report.student import Interval
from benchmarks.report.verdict import iso_quality
from benchmarks.report.views import (
    EQUAL_STEPS,
    MULTI_TASK,
    SINGLE_TASK,
    budget_view,
    fair_view,
    view_place,
)
from mt2st.files import content_hash

FIXED, PER_SEED = "fixed", "per-seed"  # how labels and validation carve are drawn: the knob `draw`


def summarise(
    records: Records,
    spec: ReportSpec,
    *,
    benchmark: str,
    recipe: str,
    known: Sequence[str] = (),
    method: Method = "student",
) -> Summary:
    """The summary of a recipe's records.

    Args:
        known: the built-in strategies in the order of their table; rows of others follow by name.
        method: kind of the bootstrap intervals; see `benchmarks.report.statistics`.

    Raises:
        Mt2stError: a finished run lacks the primary metric, or runs were scored on different items.
    """
    by_place, left_out = _by_place(records.finished)
    places = set(by_place) | {(view, hole.strategy) for hole in records.holes for view in hole.views if hole.strategy}
    looks = _looks(records.finished)
    way = Way(method, confidence_of_look(len({run.seed for run in records.finished}), looks) if looks else 0.95)
    rows: list[Row] = []
    for view in sorted({view for view, _ in places}, key=view_place):
        strategies = sorted((name for place, name in places if place == view), key=lambda name: _rank(name, known))
        own = [build_row(view, name, by_place, records.holes, spec, way) for name in strategies]
        rows += with_families(own, way.confidence)
    points = [
        (index, row.flops, row.primary.estimate)
        for index, row in enumerate(rows)
        if row.flops is not None and row.primary
    ]
    front = pareto_front([(cost, score) for _, cost, score in points], higher_is_better=spec.primary.higher_is_better)
    return Summary(
        benchmark=benchmark,
        recipe=recipe,
        suite_hash=records.suite_hash,
        rows=tuple(rows),
        limit=saving_limit(by_place),
        floors=_floors(records.finished, spec),
        front=tuple(points[index][0] for index in front),
        remarks=(*_remarks(records, by_place), *left_out, *_looks_remark(looks, way.confidence)),
        provenance=_provenance(records.finished),
        schedules=_schedules(rows, by_place),
        frozen=_frozen(records.finished),
        known=tuple(known),
        confidence=way.confidence,
        iso=iso_quality(
            by_place,
            lambda runs: resampled_runs(runs, spec.primary),
            _against_full_and_short(rows, by_place),
            spec,
            order=lambda name: _rank(name, known),
            confidence=way.confidence,
            looks=looks,
        ),
    )


def _looks(runs: Sequence[RunRecord]) -> tuple[int, ...]:
    """Numbers of seeds at which the suite looked at its intervals, to add seeds or not; () = seeds were not added."""
    return next((tuple(run.values["looks"]) for run in runs if run.values.get("looks")), ())


def _looks_remark(looks: Sequence[int], confidence: float) -> list[str]:
    if not looks:
        return []
    return [
        f"seeds were added until the claim was decided, with looks at {', '.join(map(str, looks))} seeds: each "
        f"interval is one of {confidence:.2%}, so that those of all looks hold together with 95 %"
    ]


def _against_full_and_short(
    rows: Sequence[Row], by_place: Places
) -> dict[str, tuple[Interval | None, Interval | None]]:
    """Strategy → its differences to full and to shortened MTL in the fair view, of those that fade.

    Controls and methods that weigh tasks do not, and what they reach says nothing of fading. Records of versions up to
    0.2 do not say it; there all but STL and MTL fade.
    """
    fair = fair_view(row.view for row in rows)
    return {
        row.strategy: (row.to_full_multi, row.to_multi)
        for row in rows
        if row.view == fair
        and row.strategy not in (SINGLE_TASK, MULTI_TASK)
        and any(run.values.get("fades", True) for run in by_place.get((row.view, row.strategy), ()))
    }


def _by_place(finished: Sequence[RunRecord]) -> tuple[dict[tuple[str, str], list[RunRecord]], list[str]]:
    """Runs by (view, strategy), sorted by seed, and remarks on those left out.

    A strategy that was run with several settings (another switch point) is never mixed: the
    setting of the run that started last counts.
    """
    found: dict[tuple[str, str], dict[str, list[RunRecord]]] = {}
    for run in finished:
        for view in run.views:
            found.setdefault((view, run.strategy), {}).setdefault(_setting(run), []).append(run)
    chosen: dict[tuple[str, str], list[RunRecord]] = {}
    remarks = []
    for (view, strategy), settings in found.items():
        last = max(settings, key=lambda setting: max(str(run.values["started_utc"]) for run in settings[setting]))
        by_seed = {run.seed: run for run in settings.pop(last)}  # equal runs that were planned for other views too
        chosen[view, strategy] = [by_seed[seed] for seed in sorted(by_seed)]
        if settings:
            count = sum(len(runs) for runs in settings.values())
            remarks.append(f"{strategy} ({view}): {count} run(s) with other settings left out")
    whole = budget_view(1.0)
    if (EQUAL_STEPS, MULTI_TASK) in chosen and any(view == whole for view, _ in chosen):
        chosen.setdefault((whole, MULTI_TASK), chosen[EQUAL_STEPS, MULTI_TASK])  # the same runs by definition
    return chosen, remarks


def _setting(run: RunRecord) -> str:
    """What a strategy's seeds have in common: its own knobs and those of the suite."""
    return content_hash([run.values["config"].get("strategy"), run.values["config"].get("knobs")])


def _floors(runs: Sequence[RunRecord], spec: ReportSpec) -> dict[str, dict[str, float]]:
    labels = dict(spec.floors)
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for name, values in run.values.get("floors", {}).items():
            if labels and name not in labels:
                continue
            for metric_id, value in values.items():
                if value is not None:
                    found.setdefault(labels.get(name, name), {}).setdefault(metric_id, []).append(float(value))
    return {
        name: {metric_id: float(np.mean(values)) for metric_id, values in metrics.items()}
        for name, metrics in found.items()
    }


def _frozen(runs: Sequence[RunRecord]) -> dict[str, FrozenPass]:
    """Part → its passes, each counted once however many runs read what it kept."""
    passes = {each["key"]: each for run in runs for each in run.values.get("frozen_towers", ())}
    found = {}
    for part in sorted({each["part"] for each in passes.values()}):
        own = [each for each in passes.values() if each["part"] == part]
        sums = {name: sum(each[name] for each in own) for name in ("items", "flops", "seconds", "bytes")}
        found[part] = FrozenPass(passes=len(own), **sums)
    return found


# -- around the rows ---------------------------------------------------------------------------------------------------


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _remarks(records: Records, by_place: Places) -> list[str]:
    found = []
    for hole in records.holes:
        found.append(f"{hole.kind}: {_hole_text(hole)}")
    for run in records.finished:
        where = f"{run.strategy}, seed {run.seed} ({', '.join(run.views)})"
        found += [f"{where}: {warning}" for warning in run.values.get("warnings", ())]
    if left := max((run.values["data"].get(LEFT_IN, 0) for run in records.finished if "data" in run.values), default=0):
        found.append(
            f"{left} training images are in the test split as well (--on-leak allow): scores on them tell nothing of "
            "unseen images"
        )
    seeds = {frozenset(run.seed for run in runs) for runs in by_place.values()}
    if len(seeds) > 1:
        found.append("strategies have different seeds; each difference uses the seeds that both sides have")
    if any(len(runs) == 1 for runs in by_place.values()):
        found.append("one seed only: its interval is over items alone and says nothing about other seeds")
    if records.finished and {_draw(run) for run in records.finished} == {FIXED}:
        found.append(
            "labels and validation carve are the same for every seed: the intervals leave out their variance "
            "(--draw per-seed draws both anew)"
        )
    found += _starts(records.finished)
    if operations := sorted({name for run in records.finished for name in _unknown_operations(run)}):
        found.append(f"training FLOPs leave out operations whose formula is not known: {', '.join(operations)}")
    for label, describe_run in (("data", _data_text), ("commits", _commit_text), ("draws of the labels", _draw)):
        values = {describe_run(run) for run in records.finished}
        if len(values) > 1:
            found.append(f"the runs mix {label}: {'; '.join(sorted(values))}")
    for suite, count in (records.other_suites or {}).items():
        found.append(f"{count} run(s) with other knobs left out; show them with --suite {suite[:8]}")
    return found


def _starts(runs: Sequence[RunRecord]) -> list[str]:
    """From which other runs' weights these start, and what is doubtful about that; a line each, each once."""
    found: dict[str, None] = {}
    for start in (run.values["init_from"] for run in runs if run.values.get("init_from")):
        found[
            f"the runs start from the weights of {start['run_id']} ({start['benchmark']}): its cost stands in the "
            "column of pretraining and in no other, and the intervals leave out the variance of that one pretraining"
        ] = None
        found |= dict.fromkeys(start["doubts"])
    return list(found)


def _hole_text(hole: Hole) -> str:
    """Who is missing and why: "MTL, seed 2 (equal-steps): loss is NaN at step 3"."""
    seed = "" if hole.seed is None else f", seed {hole.seed}"
    return f"{hole.strategy or hole.folder.name}{seed} ({', '.join(hole.views) or 'unknown view'}): {hole.why}"


def _draw(run: RunRecord) -> str:
    """How the labelled subset and the validation carve were drawn; records without the knob kept them fixed."""
    return next((str(value) for value in _values_of(run.values["config"], "draw")), FIXED)


def _values_of(config: Any, name: str) -> Iterator[Any]:
    """The values of every field `name` in nested knobs."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == name:
                yield value
            else:
                yield from _values_of(value, name)


def _unknown_operations(run: RunRecord) -> list[str]:
    listing = run.values["flops"].get("unknown_operations")
    return [str(name) for name in listing] if isinstance(listing, Mapping) else []


def _schedules(rows: Sequence[Row], by_place: Places) -> dict[str, dict[str, str]]:
    """The schedule of each auxiliary, as the shown runs recorded it; several texts where runs differ."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for row in rows:
        for run in by_place.get((row.view, row.strategy), []):
            recorded = run.values.get("schedules")
            for auxiliary, text in recorded.items() if isinstance(recorded, Mapping) else ():
                found.setdefault(row.strategy, {}).setdefault(auxiliary, {})[str(text)] = None
    return {
        strategy: {auxiliary: " | ".join(texts) for auxiliary, texts in by_auxiliary.items()}
        for strategy, by_auxiliary in found.items()
    }


def _data_text(run: RunRecord) -> str:
    data = run.values.get("data") or {}
    digest = str(data.get("content_hash", ""))[:12]
    parts = (str(data.get("name", "unknown")), str(data.get("revision", "")), digest and f"content {digest}")
    return " ".join(part for part in parts if part)


def _commit_text(run: RunRecord) -> str:
    commit = run.values.get("commit")
    if not isinstance(commit, dict):
        return str(commit) if commit else "not in git"
    return f"{str(commit.get('hash'))[:12]}{' with local changes' if commit.get('dirty') else ''}"


def _provenance(runs: Sequence[RunRecord]) -> dict[str, str]:
    if not runs:
        return {}
    last = runs[-1].values
    versions = last.get("versions") or {}
    parameters = (last.get("model") or {}).get("parameters")
    found = {
        "data": "; ".join(sorted({_data_text(run) for run in runs})),
        "labels and validation carve": "drawn anew for every seed"
        if {_draw(run) for run in runs} == {PER_SEED}
        else "",
        "model": f"{parameters:,} parameters" if isinstance(parameters, int) else "",
        "machine": "; ".join(sorted({describe(run.values.get("hardware") or {}) for run in runs})),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        "commit": "; ".join(sorted({_commit_text(run) for run in runs})),
    }
    return {label: text for label, text in found.items() if text}
