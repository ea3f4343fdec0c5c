"""Statistics of runs: intervals over seeds × items, paired differences, FLOPs saved, FLOPs to a score, Pareto front.

**What is random.** A strategy's number varies with the training seed and with the test items drawn; every item is
answered by every seed, so the two are *crossed*. Items come in clusters (questions on one picture), which are what is
drawn: see `benchmarks.report.resampling`. Where each seed draws its own labels, that is part of the seed's variance.
Shape legend: S seeds, C clusters of items, R resamples.

**Variance.** Of a mean over S seeds, V = V_seeds + V_items. V_seeds = s²/S, from the seeds' values on all items; it
holds the noise that is neither the seed's alone nor the items' alone (the interaction) once, as it should. V_items is
the variance of the mean over resampled clusters, less the interaction's part in it, which V_seeds holds already
(two-way clustering; Cameron, Gelbach and Miller 2011). Paired differences are mostly interaction: without the
subtraction, as in Owen's pigeonhole bootstrap (2007), it would count up to three times.

**Intervals.** `student` (default): estimate ± √(t²_{S−1}·V_seeds + t²_{C−1}·V_items), each part with the quantile of
its own degrees of freedom (Graybill and Wang's way with sums of variances): t_{S−1} alone would be twice too wide
where items dominate. Simulated with the variances and clusters of our records, 3 to 10 seeds cover 93 to 97 %
(tests/unit/benchmarks/test_coverage.py). `percentile`: quantiles of the pigeonhole bootstrap, with S − 1 of S seeds
(Rao and Wu 1988); with three seeds it covers about four of five, so it is not the default. One seed: over items only,
and said so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from benchmarks.report.resampling import RESAMPLES, Items, Resampled, Statistic, resample
from benchmarks.report.student import Interval, student_half_width
from mt2st.errors import Mt2stError, check_range

Method = Literal["student", "percentile"]


def seed_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Mean over seeds ± t_{S−1}·s/√S (Student): for a metric that has no per-item form.

    Raises:
        Mt2stError: there are no values, or one is not finite.
    """
    array = _finite(values)
    check_range("confidence", confidence, 0.0, 1.0, "0.95 is a 95 % interval")
    estimate = float(array.mean())
    if len(array) == 1:
        return Interval(estimate, math.nan, math.nan, 1, "nothing")
    variance = float(array.var(ddof=1)) / len(array)
    half = student_half_width(variance, 0.0, len(array), 0, confidence)
    return Interval(estimate, estimate - half, estimate + half, len(array), "seeds", of_seeds=variance)


def seed_difference(left: Sequence[float], right: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """`left − right`, paired by seed, Student's t over seeds."""
    if len(left) != len(right):
        raise Mt2stError(
            f"paired difference: {len(left)} values against {len(right)}; give the same seeds on both sides"
        )
    return seed_interval(list(_finite(left) - _finite(right)), confidence=confidence)


def bootstrap(
    seeds: Sequence[Items],
    statistic: Statistic = "mean",
    *,
    clusters: np.ndarray | None = None,
    method: Method = "student",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    random_seed: int = 0,
) -> Interval:
    """Interval of a strategy's statistic over seeds × clusters of items; see the module's text.

    Args:
        seeds: for each seed its item arrays, each [N]; "mean" and "median" use the first array.
        statistic: "mean", "median", or a function of the item arrays [N] → float.
        clusters: cluster of each item, [N] integers; None = every item is one.
        random_seed: fixes the resamples; equal input, equal interval.

    Raises:
        Mt2stError: no seeds, no items, or seeds with different numbers of items.
    """
    found = resample(seeds, statistic, clusters, resamples=resamples, random_seed=random_seed)
    return interval_of(
        found, clustered=clusters is not None, method=method, confidence=confidence, random_seed=random_seed
    )


def paired_bootstrap(
    left: Sequence[Items],
    right: Sequence[Items],
    statistic: Statistic = "mean",
    *,
    clusters: np.ndarray | None = None,
    method: Method = "student",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    random_seed: int = 0,
) -> Interval:
    """Interval of `left − right`, both sides with the same seeds and the same resampled items.

    Args:
        left, right: item arrays by seed, in the same order of seeds; the items are the same ones in the same order.

    Raises:
        Mt2stError: different numbers of seeds or items.
    """
    if len(left) != len(right):
        raise Mt2stError(
            f"paired difference: {len(left)} seeds against {len(right)}; give the same seeds on both sides"
        )
    both = resample([*left, *right], statistic, clusters, resamples=resamples, random_seed=random_seed)
    difference = both.pick(range(len(left))).minus(both.pick(range(len(left), 2 * len(left))))
    return interval_of(
        difference, clustered=clusters is not None, method=method, confidence=confidence, random_seed=random_seed
    )


def interval_of(
    found: Resampled,
    *,
    clustered: bool = False,
    method: Method = "student",
    confidence: float = 0.95,
    random_seed: int = 0,
) -> Interval:
    """The interval of the mean over seeds of a resampled statistic; `clustered` = its items share clusters."""
    check_range("confidence", confidence, 0.0, 1.0, "0.95 is a 95 % interval")
    count, estimate = len(found.point), float(found.point.mean())
    items = "clusters" if clustered else "items"
    over = f"seeds × {items}" if count > 1 else items
    of_seeds, of_items = variances(found, clustered=clustered)
    if method == "percentile":
        low, high = np.quantile(_pigeonhole(found, random_seed), [(1 - confidence) / 2, (1 + confidence) / 2])
    elif method == "student":
        half = student_half_width(of_seeds, of_items, count, found.clusters, confidence)
        low, high = estimate - half, estimate + half
    else:
        raise Mt2stError(f"method = {method!r} must be 'student' or 'percentile'")
    return Interval(estimate, float(low), float(high), count, over, found.clusters, of_seeds, of_items)


def variances(found: Resampled, *, clustered: bool = False) -> tuple[float, float]:
    """V_seeds and V_items of the mean over seeds; see the module's text."""
    count = len(found.point)
    # A bootstrap's variance is (C − 1)/C of the truth: nothing with many items, much with few clusters.
    scale = found.clusters / (found.clusters - 1) if clustered else 1.0
    if count == 1:
        return 0.0, scale * float(found.values[:, 0].var())
    of_mean = found.values.mean(axis=1)  # [R]
    # Between seeds, a resample's deviations from their mean hold (S − 1)/S of the interaction's variance.
    interaction = float((found.values - of_mean[:, None]).var(axis=0).mean()) / (count - 1)
    return float(found.point.var(ddof=1)) / count, scale * max(float(of_mean.var()) - interaction, 0.0)


def _pigeonhole(found: Resampled, random_seed: int) -> np.ndarray:
    """The mean over S − 1 seeds drawn with replacement, on every resample of the items: [R]."""
    count = len(found.point)
    if count == 1:
        return found.values[:, 0]
    draws = np.random.default_rng([random_seed, 2])
    chosen = draws.integers(0, count, size=(len(found.values), count - 1))  # [R, S − 1]
    return np.take_along_axis(found.values, chosen, axis=1).mean(axis=1)


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise Mt2stError(f"values over seeds are {list(values)!r:.80}; at least one is needed and all must be finite")
    return array


# -- costs -------------------------------------------------------------------------------------------------------------


def compression(flops: float, reference_flops: float) -> float:
    """1 − flops / reference: 0.56 = 56 % fewer training FLOPs than the reference; negative = more.

    The definition is for equal numbers of optimiser steps; the caller sees to that.
    """
    if not reference_flops > 0:
        raise Mt2stError(f"compression: the reference's training FLOPs are {reference_flops!r}; they must be > 0")
    return 1.0 - flops / reference_flops


def first_to_reach(
    curve: Sequence[tuple[float, float]], target: float, *, higher_is_better: bool = True
) -> float | None:
    """Cost of the first evaluation whose score is at least as good as `target`; None if none is.

    No interpolation: between two evaluations nobody looked.

    Args:
        curve: (cost, score) in order of cost.
    """
    for cost, score in curve:
        if score >= target if higher_is_better else score <= target:
            return cost
    return None


def pareto_front(points: Sequence[tuple[float, float]], *, higher_is_better: bool = True) -> list[int]:
    """Indices of the points (cost, score) on the Pareto front, by rising cost.

    No other point beats one of them in cost or score and equals or beats it in the other. Equal points are all on the
    front.
    """
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(range(len(points)), key=lambda index: (points[index][0], sign * points[index][1]))
    front: list[int] = []
    for index in order:
        if not front:
            front.append(index)
            continue
        cost, score = points[front[-1]]
        better = sign * points[index][1] < sign * score
        if better or (points[index][0] == cost and points[index][1] == score):
            front.append(index)
    return front
