"""Iso-quality: what full MTL's quality costs under each strategy, and whether the claim holds; one sentence a case.

**The claim.** At the claimed budget a strategy is *non-inferior* to full MTL (the lower end of the paired interval of
the difference lies above −δ) *and* better than MTL shortened to the same budget (the interval excludes 0): fading, and
not merely stopping early, saves. Both must be shown, so neither needs a correction for the other (intersection-union
test; Berger 1982). The strategies that fade are a family: Holm's correction (1979) holds for "this one is it". That
none of them is needs no correction, for each must fail. One seed says nothing of others, so it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from benchmarks.report.cells import difference_text
from benchmarks.report.curve import Curve, Point, fit_curve
from benchmarks.report.families import holm
from benchmarks.report.power import seeds_to_decide
from benchmarks.report.resampling import Resampled
from benchmarks.report.spec import Metric, ReportSpec
from benchmarks.report.student import Interval, p_value
from benchmarks.report.views import EQUAL_STEPS, MULTI_TASK, budget_of, budget_view, fair_view

Kind = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """One strategy at the claimed budget, against full MTL and against MTL shortened to that budget.

    Attributes:
        to_full, to_short: differences of the primary metric, in its own direction.
        kind: "holds" where both are shown, "fails" where the opposite of one is, "undecided" otherwise, and with one
            seed.
        p: one-sided p-value that it does not hold, the larger of both, after Holm's correction over the strategies.
        seeds_needed: seeds that would decide, if the differences are as estimated; None = no number would, or unknown.
    """

    strategy: str
    to_full: Interval
    to_short: Interval
    kind: Kind
    p: float
    seeds_needed: int | None


@dataclass(frozen=True)
class IsoQuality:
    """Quality against FLOPs of every strategy.

    Attributes:
        level: full MTL's primary metric.
        full_flops: its training FLOPs.
        margin: δ in units of the metric; None = none was declared.
        budget: the claimed budget, as a share of full MTL's FLOPs, as its runs spent it; None = no budget was run.
        curves: one a strategy.
        verdicts: one a strategy that fades.
        looks: numbers of seeds at which the suite was looked at; empty = once.
        sentence: what it comes to.
    """

    level: float
    full_flops: float
    margin: float | None
    budget: float | None
    curves: tuple[Curve, ...]
    verdicts: tuple[Verdict, ...]
    looks: tuple[int, ...]
    sentence: str

    @property
    def decided(self) -> bool:
        """Whether more seeds would not change the sentence's verdict."""
        kinds = {verdict.kind for verdict in self.verdicts}
        return bool(kinds) and ("holds" in kinds or kinds == {"fails"})

    def as_json(self) -> dict[str, Any]:
        """Plain values for summary.json, without the curves' pictures."""
        value = asdict(self)
        for curve in value["curves"]:
            for name in ("grid", "fitted", "low", "high"):
                del curve[name]
            # JSON has no ∞
            curve["to_full"] = {name: None if math.isinf(x) else x for name, x in curve["to_full"].items()}
        return value


class Finished(Protocol):
    """A finished run."""

    @property
    def seed(self) -> int: ...

    @property
    def training_flops(self) -> float: ...


Places = Mapping[tuple[str, str], Sequence[Any]]  # (view, strategy) → `Finished` runs by seed


def iso_quality(
    by_place: Places,
    resampled: Callable[[Sequence[Any]], Resampled],
    differences: Mapping[str, tuple[Interval | None, Interval | None]],
    spec: ReportSpec,
    *,
    order: Callable[[str], Any],
    confidence: float = 0.95,
    looks: Sequence[int] = (),
) -> IsoQuality | None:
    """The curves of all strategies, the verdict on each, and the sentence; None without full MTL.

    Args:
        by_place: finished runs.
        resampled: runs → their primary metric on all items and on resamples, a column each; the same resamples for all.
        differences: strategy that fades → its differences to full MTL and to shortened MTL at the claimed budget.
        order: sorts strategies as tables show them.
        confidence: of the intervals, less than one look's where there are several.
    """
    view = fair_view(view for view, _ in by_place)
    full_runs = by_place.get((EQUAL_STEPS, MULTI_TASK)) or by_place.get((budget_view(1.0), MULTI_TASK))
    if not full_runs:
        return None
    runs = list({id(run): run for members in by_place.values() for run in members}.values())
    found, sign = resampled(runs), 1.0 if spec.primary.higher_is_better else -1.0
    table = _Points(runs, Resampled(sign * found.point, sign * found.values, found.clusters), full_runs)
    strategies = sorted({strategy for _, strategy in by_place}, key=order)
    members = {name: [runs for (_, strategy), runs in by_place.items() if strategy == name] for name in strategies}
    curves = []
    for name in strategies:
        shortened = members.get(MULTI_TASK) or [full_runs]
        seeds = table.common([*members[name], *shortened, full_runs])
        if seeds:
            own, other = table.points(members[name], seeds), table.points(shortened, seeds)
            full = table.points([full_runs], seeds)[0]
            curves.append(fit_curve(name, own, other, full, spec.margin, confidence=confidence))
    verdicts = _verdicts(differences, spec, confidence)
    spent = [run.training_flops for run in by_place.get((view or "", MULTI_TASK), [])]
    full_flops = float(np.mean([run.training_flops for run in full_runs]))
    budget = (budget_of(view) or float(np.mean(spent)) / full_flops) if view and spent else None
    level = float(found.point[[runs.index(run) for run in full_runs]].mean())
    sentence = _sentence(verdicts, curves, spec, budget)
    return IsoQuality(level, full_flops, spec.margin, budget, tuple(curves), verdicts, tuple(looks), sentence)


class _Points:
    """Points of curves out of one table of resamples, whose columns are runs."""

    def __init__(self, runs: Sequence[Finished], found: Resampled, full: Sequence[Finished]) -> None:
        self._column = {id(run): place for place, run in enumerate(runs)}
        self._found, self._full = found, {run.seed: run.training_flops for run in full}

    @staticmethod
    def common(places: Sequence[Sequence[Finished]]) -> list[int]:
        """The seeds that all places have."""
        return sorted(set.intersection(*({run.seed for run in runs} for runs in places)))

    def points(self, places: Sequence[Sequence[Finished]], seeds: Sequence[int]) -> list[Point]:
        """A point for each place; places with the same runs, such as MTL's at 1.0 and at equal steps, are one."""
        full = sum(self._full[seed] for seed in seeds)
        found: dict[tuple[int, ...], Point] = {}
        for runs in places:
            by_seed = {run.seed: run for run in runs}
            chosen = tuple(self._column[id(by_seed[seed])] for seed in seeds)
            share = sum(by_seed[seed].training_flops for seed in seeds) / full
            found[chosen] = Point(share, self._found.pick(chosen))
        return list(found.values())


def oriented(interval: Interval, metric: Metric) -> Interval:
    """The interval of a difference with larger = better."""
    if metric.higher_is_better:
        return interval
    return replace(interval, estimate=-interval.estimate, low=-interval.high, high=-interval.low)


def _verdicts(
    differences: Mapping[str, tuple[Interval | None, Interval | None]], spec: ReportSpec, confidence: float
) -> tuple[Verdict, ...]:
    known = {name: (full, short) for name, (full, short) in differences.items() if full and short}
    if spec.margin is None:
        return ()
    margin = spec.margin
    raw = [
        max(_p_not_above(oriented(full, spec.primary), -margin), _p_not_above(oriented(short, spec.primary), 0.0))
        for full, short in known.values()
    ]
    verdicts = []
    for (name, (full, short)), p in zip(known.items(), holm(raw)):
        tested = ((oriented(full, spec.primary), -margin), (oriented(short, spec.primary), 0.0))
        kind: Kind = "undecided"
        if min(full.seeds, short.seeds) < 2:
            pass  # intervals over items alone: another seed may say the opposite
        elif p <= (1 - confidence) / 2:
            kind = "holds"
        elif any(interval.high < boundary for interval, boundary in tested):
            kind = "fails"
        corrected = 1 - (1 - confidence) / len(known)
        needed = _seeds_needed(tested, confidence, corrected) if kind == "undecided" else None
        verdicts.append(Verdict(name, full, short, kind, p, needed))
    return tuple(verdicts)


def _p_not_above(interval: Interval, boundary: float) -> float:
    """One-sided p-value of the hypothesis that the truth is not above the boundary."""
    p = p_value(interval, boundary)
    return p / 2 if interval.estimate > boundary else 1 - p / 2


def _seeds_needed(tested: Sequence[tuple[Interval, float]], confidence: float, corrected: float) -> int | None:
    """Seeds to show what the estimates say: that one condition fails, or that both hold (after the correction)."""
    failing = [
        seeds_to_decide(interval, boundary, confidence) for interval, boundary in tested if interval.estimate < boundary
    ]
    if failing:
        return min((needed for needed in failing if needed is not None), default=None)
    holding = [seeds_to_decide(interval, boundary, corrected) for interval, boundary in tested]
    return None if None in holding else max(needed for needed in holding if needed is not None)


def leading(verdicts: Sequence[Verdict], curves: Sequence[Curve], metric: Metric) -> Verdict:
    """The one that the sentence names: of the best kind, the one that saves most at no loss, then the smallest p."""
    rank = ("holds", "undecided", "fails")
    costs = {curve.strategy: curve.no_loss for curve in curves if curve.no_loss is not None}

    def place(one: Verdict) -> tuple[float, ...]:
        difference = oriented(one.to_full, metric).estimate
        return rank.index(one.kind), costs.get(one.strategy, 1.0), one.p, -difference

    return min(verdicts, key=place)


def _sentence(verdicts: Sequence[Verdict], curves: Sequence[Curve], spec: ReportSpec, budget: float | None) -> str:
    """Holds, fails or undecided, of which strategy, with intervals, budget and the largest savings."""
    metric = spec.primary
    if spec.margin is None:
        return f"Not decided: no margin δ is declared for {metric.label}, so no loss is called none."
    if not verdicts or budget is None:
        return (
            f"Not decided: that needs {MULTI_TASK} at full length, and {MULTI_TASK} and a strategy that fades at a "
            "smaller budget."
        )
    best = leading(verdicts, curves, metric)
    unit = "points" if metric.unit == "%" else metric.unit or metric.label
    head = best.kind.capitalize()
    if best.kind == "fails":
        head += f" for every strategy ({len(verdicts)}); the nearest" if len(verdicts) > 1 else ""
    parts = [
        f"{head}: with {budget:.0%} of full {MULTI_TASK}'s training FLOPs ({1 - budget:.0%} fewer) {best.strategy} is "
        f"{difference_text(best.to_full, metric)} {unit} from full {MULTI_TASK} (δ = {metric.text(spec.margin)}) and "
        f"{difference_text(best.to_short, metric)} from {MULTI_TASK} shortened to the same budget, "
        f"{best.to_full.seeds} seed{'s' if best.to_full.seeds > 1 else ''}"
    ]
    if best.kind == "undecided":
        needed = best.seeds_needed
        more = f"{needed} seeds would decide" if needed else "more seeds alone would hardly decide"
        parts.append("one seed says nothing of others" if best.to_full.seeds == 1 else more)
    savings = {curve.strategy: curve for curve in curves}
    own, short = savings.get(best.strategy), savings.get(MULTI_TASK)
    text = "; ".join(parts) + "."
    if own is not None and short is not None:
        text += (
            f" Largest saving at no loss: {best.strategy} {saving_text(own.no_loss)}"
            f" (and better than shortened {MULTI_TASK}: {saving_text(own.ahead)}), {MULTI_TASK} merely shortened "
            f"{saving_text(short.no_loss)}."
        )
    return text


def saving_text(share: float | None) -> str:
    """ "56 %", or "none"; what costs as much as full MTL saves none."""
    return "none" if share is None or share >= 0.995 else f"{1 - share:.0%}".replace("%", " %")
