"""An estimate with its interval, from the two parts of its variance; see `benchmarks.report.statistics`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize, stats

_SMALLEST_P = 1e-12  # smaller ones are given as this


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: mean over seeds of the statistic on all items.
        low, high: ends of the interval; NaN where nothing can be said (one seed without items).
        seeds: S, number of seeds in it.
        over: what varies in it: "seeds × items", "seeds × clusters", "seeds", "items", "clusters" or "nothing".
        clusters: C, number of clusters of items; 0 without items.
        of_seeds, of_items: the two parts of the estimate's variance.
    """

    estimate: float
    low: float
    high: float
    seeds: int
    over: str
    clusters: int = 0
    of_seeds: float = 0.0
    of_items: float = 0.0

    @property
    def half_width(self) -> float:
        """Half of the interval's width: the number after ±."""
        return (self.high - self.low) / 2

    def half_at(self, confidence: float) -> float:
        """Half of the Student interval's width at another confidence; NaN where nothing can be said."""
        if self.over == "nothing":
            return math.nan
        return student_half_width(self.of_seeds, self.of_items, self.seeds, self.clusters, confidence)


def p_value(interval: Interval, value: float = 0.0) -> float:
    """Two-sided p-value of the hypothesis that the truth is `value`.

    It is 1 − the confidence at which the interval ends there.
    NaN where nothing can be said.
    """
    distance = abs(interval.estimate - value)
    if interval.over == "nothing" or interval.of_seeds + interval.of_items <= 0:
        return math.nan if interval.over == "nothing" else float(distance == 0)
    if interval.half_at(1 - _SMALLEST_P) <= distance:
        return _SMALLEST_P
    return float(optimize.brentq(lambda alpha: interval.half_at(1 - alpha) - distance, _SMALLEST_P, 1.0))


def student_half_width(of_seeds: float, of_items: float, seeds: int, clusters: int, confidence: float) -> float:
    """√(t²_{S−1}·V_seeds + t²_{C−1}·V_items)."""
    seed_quantile = float(stats.t.ppf((1 + confidence) / 2, seeds - 1)) if seeds > 1 else 0.0
    item_quantile = float(stats.t.ppf((1 + confidence) / 2, max(clusters - 1, 1)))
    return math.sqrt(seed_quantile**2 * of_seeds + item_quantile**2 * of_items)
