"""Families of comparisons: Holm's correction (Holm 1979), and intervals that allow for looking several times."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: reject those of at most α, and the chance of any false rejection in the family is at most α.

    The smallest of m is multiplied by m, the next by m − 1, …, and none is below the one before it. NaN stays NaN, and
    is no member of the family.
    """
    members = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(members):
        highest = max(highest, min(1.0, (len(members) - rank) * p))
        adjusted[place] = highest
    return adjusted


def looks_until(limit: int) -> tuple[int, ...]:
    """Numbers of seeds at which a suite that adds seeds looks at its intervals: a quarter of `limit`, half, all."""
    return tuple(sorted({max(2, math.ceil(limit / 4)), max(2, math.ceil(limit / 2)), limit}))


def confidence_of_look(seeds: int, looks: Sequence[int], confidence: float = 0.95) -> float:
    """The confidence of the intervals at `seeds` seeds, so that those of all looks hold together with `confidence`.

    α is spent in proportion to the seeds (Lan and DeMets 1983, the linear spending function; Kim and DeMets 1987), and
    the looks' parts are added up (Bonferroni): that needs no joint distribution and holds with few seeds. With looks
    at 4, 8 and 16 seeds: 98.75, 98.75 and 97.5 %. Between two looks the next one's holds, beyond the last the last's.
    """
    starts = (0, *looks[:-1])
    for before, look in zip(starts, looks):
        if seeds <= look or look == looks[-1]:
            return 1 - (1 - confidence) * (look - before) / looks[-1]
    return confidence
