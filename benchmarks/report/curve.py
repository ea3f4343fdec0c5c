"""Quality against training FLOPs: a monotone curve of each strategy, and what it takes to be as good as full MTL.

    q(x): quality at x, the share of full MTL's training FLOPs; from every budget that was run, each with its own steps

**Fit.** Isotonic means (more FLOPs do not make it worse), between them straight lines over log x. Nothing is said
outside of the budgets that were run.

**What varies.** Curves are drawn again and again from the joint distribution of all points: the seeds' part with
Student's t of S − 1 degrees of freedom from the seeds' own values, the items' part normal with the covariance over
resampled clusters, less the interaction (see `benchmarks.report.statistics`). Every curve, and full MTL's level, come
from the same draws, so that differences are paired. Each drawn curve is fitted anew.

Shape legend: P points of all strategies, S seeds, R draws, G places on the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.resampling import Resampled

DRAWS = 2_000
_PER_EFOLD = 120  # grid places for each factor e of FLOPs: steps of less than 1 %


@dataclass(frozen=True)
class Point:
    """A strategy at one budget.

    Attributes:
        share: its training FLOPs as a share of full MTL's, means over seeds.
        found: the primary metric of each seed and on resampled items, larger is better.
    """

    share: float
    found: Resampled


@dataclass(frozen=True)
class Crossing:
    """A share of full MTL's FLOPs with its 95 % interval; inf = not within the budgets that were run."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The curve of a strategy.

    Attributes:
        strategy: its name.
        shares: the budgets that were run, as shares of full MTL's FLOPs, rising.
        seeds: how many seeds are in it: those that MTL has as well.
        grid, fitted, low, high: the fitted curve with its 95 % band, in units of the metric, [G] each.
        to_full: FLOPs to reach full MTL's quality.
        no_loss: smallest share at which, and above which, the lower end of the 95 % interval of the difference to full
            MTL is above −δ; None = at none, or no δ was declared.
        ahead: smallest such share at which the curve is also above the curve of shortened MTL, with an interval that
            excludes 0; None = at none.
    """

    strategy: str
    shares: tuple[float, ...]
    seeds: int
    grid: np.ndarray
    fitted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    to_full: Crossing
    no_loss: float | None
    ahead: float | None


def isotonic(values: np.ndarray) -> np.ndarray:
    """The closest non-decreasing sequence in least squares, along the last axis [..., P], by the max-min formula

    max over j ≤ i of min over k ≥ i of mean(values[j … k])   (Robertson, Wright and Dykstra 1988, 1.4.4).
    """
    count = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    fitted = np.empty_like(values, dtype=np.float64)
    for i in range(count):
        lowest = [
            np.min([(sums[..., k + 1] - sums[..., j]) / (k + 1 - j) for k in range(i, count)], axis=0)
            for j in range(i + 1)
        ]
        fitted[..., i] = np.max(lowest, axis=0)
    return fitted


def draw_points(points: Sequence[Point], draws: int = DRAWS, random_seed: int = 0) -> np.ndarray:
    """Values of all points in each draw, [R, P], from the distribution that the module's text describes.

    Args:
        points: all with the same seeds in the same order, and the same resamples.
    """
    random = np.random.default_rng([random_seed, 3])
    means = np.array([point.found.point.mean() for point in points])
    by_seed = np.stack([point.found.point for point in points], axis=1)  # [S, P]
    seeds = len(by_seed)
    drawn = np.tile(means, (draws, 1))
    if seeds > 1:
        spread = (by_seed - means) / math.sqrt(seeds * (seeds - 1))
        student = np.sqrt((seeds - 1) / random.chisquare(seeds - 1, size=draws))[:, None]
        drawn += student * (random.standard_normal((draws, seeds)) @ spread)
    return drawn + random.standard_normal((draws, len(points))) @ _root(items_covariance(points))


def items_covariance(points: Sequence[Point]) -> np.ndarray:
    """Covariance of the points' means over seeds that comes from the items drawn, less the interaction: [P, P]."""
    values = np.stack([point.found.values for point in points], axis=2)  # [R, S, P]
    resamples, seeds, _ = values.shape
    of_mean = values.mean(axis=1)
    of_mean -= of_mean.mean(axis=0)
    found = of_mean.T @ of_mean / resamples
    if seeds > 1:
        within = values - values.mean(axis=1, keepdims=True)
        within -= within.mean(axis=0)
        found -= np.einsum("rsp,rsq->pq", within, within) / (resamples * seeds * (seeds - 1))
    clusters = points[0].found.clusters
    return found * (clusters / (clusters - 1) if clusters > 1 else 1.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric A with A·A = the covariance; what estimation made negative is 0. Unlike others it is unique."""
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


def fit_curve(
    strategy: str,
    own: Sequence[Point],
    shortened: Sequence[Point],
    full: Point,
    margin: float | None,
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
) -> Curve:
    """The curve of a strategy, and where it stands against full MTL and against the curve of shortened MTL.

    Args:
        own, shortened: points of the strategy and of MTL; at least one each.
        full: full MTL.
        margin: δ, in units of the metric; None = none was declared.

    All points have the same seeds in the same order; larger is better.
    """
    own, shortened = (sorted(points, key=lambda point: point.share) for points in (own, shortened))
    points = [*own, *shortened, full]
    drawn = np.vstack([[point.found.point.mean() for point in points], draw_points(points, draws)])  # row 0: estimates
    shares = np.array([point.share for point in own])
    grid = log_grid(shares[0], shares[-1])
    curves = interpolated(shares, isotonic(drawn[:, : len(own)]), grid)  # [1 + R, G]
    level = drawn[:, -1:]  # [1 + R, 1]
    low, high = _ends(curves[1:], confidence)
    not_worse = np.zeros(len(grid), bool)
    if margin is not None:
        not_worse = _ends((curves - level)[1:], confidence)[0] > -margin
        not_worse = np.minimum.accumulate(not_worse[::-1])[::-1]  # and from there on
    other = np.array([point.share for point in shortened])
    inside = (grid >= other[0] * (1 - 1e-6)) & (grid <= other[-1] * (1 + 1e-6))
    lead = curves - interpolated(other, isotonic(drawn[:, len(own) : -1]), grid)
    better = inside & (_ends(lead[1:], confidence)[0] > 0)
    return Curve(
        strategy,
        tuple(shares.tolist()),
        len(full.found.point),
        grid,
        curves[0],
        low,
        high,
        _crossing(grid, curves, level, confidence),
        _first(grid, not_worse),
        _first(grid, not_worse & better),
    )


def log_grid(low: float, high: float) -> np.ndarray:
    """Shares from `low` to `high`, evenly spaced on a logarithmic axis, in steps of less than 1 %."""
    steps = max(1, math.ceil(_PER_EFOLD * math.log(high / low))) if high > low else 0
    grid = low * (high / low) ** (np.arange(steps + 1) / max(steps, 1))
    grid[-1] = high if steps else low  # to the last bit
    return grid


def interpolated(shares: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Each row of `values` [R, P], known at `shares` [P], on the grid [G]: lines over log FLOPs, flat outside."""
    if len(shares) == 1:
        return np.repeat(values, len(grid), axis=1)
    place = np.interp(np.log(grid), np.log(shares), np.arange(len(shares)))
    left = np.minimum(place.astype(int), len(shares) - 2)
    part = place - left
    return values[:, left] * (1 - part) + values[:, left + 1] * part


def _crossing(grid: np.ndarray, curves: np.ndarray, level: np.ndarray, confidence: float) -> Crossing:
    """Where each curve reaches the level first; the first row is the estimate."""
    reached = curves >= level - 1e-9 * np.maximum(np.abs(level), 1.0)  # full MTL reaches itself, whatever the rounding
    first = np.where(reached.any(axis=1), grid[reached.argmax(axis=1)], np.inf)
    low, high = np.quantile(first[1:], [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest")
    return Crossing(float(first[0]), float(low), float(high))


def _ends(drawn: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def _first(grid: np.ndarray, true: np.ndarray) -> float | None:
    return float(grid[true.argmax()]) if true.any() else None
