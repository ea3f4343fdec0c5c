"""Rows of an ablation: a strategy with every subset of the auxiliaries. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from benchmarks.report.views import MULTI_TASK


def subsets(auxiliaries: Sequence[str], strategies: Sequence[str] = (MULTI_TASK, "Switch")) -> tuple[str, ...]:
    """Each strategy with all auxiliaries, then with every smaller subset, large ones first.

    >>> subsets(("contrastive", "masked_lm"), ("MTL",))
    ('MTL', 'MTL:contrastive', 'MTL:masked_lm')
    """
    smaller = [
        "+".join(chosen) for size in range(len(auxiliaries) - 1, 0, -1) for chosen in combinations(auxiliaries, size)
    ]
    return tuple(row for name in strategies for row in (name, *(f"{name}:{chosen}" for chosen in smaller)))
