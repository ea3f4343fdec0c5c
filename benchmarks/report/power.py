"""How many seeds decide, and what a number of seeds can tell: power from variances that are known or from a pilot.

A difference with per-seed variance s² and items' variance V_items has, with S seeds, the interval of half-width
h(S) = √(t²_{S−1}·s²/S + t²_{C−1}·V_items). It is told from a boundary with power 80 % when it lies
h(S) + z_0.8·√(s²/S + V_items) from it. More seeds shrink the first part alone.
"""

from __future__ import annotations

import math

from scipy import stats

from benchmarks.report.student import Interval, student_half_width

POWER = 0.8
LIMIT = 1_000  # seeds; beyond, none are said to decide


def detectable(pilot: Interval, seeds: int, confidence: float = 0.95, power: float = POWER) -> float:
    """The difference that `seeds` seeds tell from 0 with this power, in units of the metric.

    Args:
        pilot: a difference with its variances, over at least two seeds.
    """
    of_seeds = pilot.of_seeds * pilot.seeds / seeds
    half = student_half_width(of_seeds, pilot.of_items, seeds, pilot.clusters, confidence)
    return half + float(stats.norm.ppf(power)) * math.sqrt(of_seeds + pilot.of_items)


def seeds_to_decide(
    pilot: Interval, boundary: float, confidence: float = 0.95, power: float = POWER, limit: int = LIMIT
) -> int | None:
    """The smallest number of seeds at which a difference as large as the pilot's is told from `boundary`.

    None where no number up to `limit` does: the difference is at the boundary, or the items alone leave more doubt.
    The pilot's difference is itself an estimate, so the number is a guess, best made from many seeds.
    """
    if pilot.seeds < 2:
        return None
    distance = abs(pilot.estimate - boundary)
    if distance <= 0 or detectable(pilot, limit, confidence, power) > distance:
        return None
    low, high = 1, limit  # low does not decide, high does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if detectable(pilot, middle, confidence, power) <= distance else (middle, high)
    return high
