"""The views in which strategies are compared, and the two strategies that the others are compared with.

A view is a word in a run's record: "equal-steps", or "budget-0.44" for a budget of 44 % of full MTL's training FLOPs.
Records of versions up to 0.2 hold "equal-budget" for their only budget.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

SINGLE_TASK, MULTI_TASK = "STL", "MTL"
EQUAL_STEPS: Final = "equal-steps"
EQUAL_BUDGET: Final = "equal-budget"
CLAIMED_BUDGET = 0.44  # 56 % fewer FLOPs: the paper's number, read as "than full MTL"
_BUDGET = re.compile(r"budget-(\d+(?:\.\d+)?(?:e-?\d+)?)")


def budget_view(share: float) -> str:
    """The view of a budget, as a share of full MTL's training FLOPs: 0.44 → "budget-0.44"."""
    return f"budget-{share:g}"


def budget_of(view: str) -> float | None:
    """The share that a view's name holds; None where it holds none."""
    found = _BUDGET.fullmatch(view)
    return float(found[1]) if found else None


def is_budget(view: str) -> bool:
    """Whether all strategies of the view get the same training FLOPs."""
    return view == EQUAL_BUDGET or budget_of(view) is not None


def fair_view(views: Iterable[str]) -> str | None:
    """The budget that one table or picture shows when it shows one: the claimed one, else the nearest to it."""
    budgets = [view for view in views if is_budget(view)]
    return min(budgets, key=lambda view: abs((budget_of(view) or CLAIMED_BUDGET) - CLAIMED_BUDGET), default=None)


def view_place(view: str) -> tuple[int, float, str]:
    """Sorts views as they are shown: budgets from small to large, equal steps, others."""
    if is_budget(view):
        return (0, budget_of(view) or CLAIMED_BUDGET, view)
    return (1 if view == EQUAL_STEPS else 2, 0.0, view)


def view_title(view: str) -> str:
    """A heading."""
    share = budget_of(view)
    if share is not None:
        return f"Budget {share:g}: every strategy gets {100 * share:g} % of full {MULTI_TASK}'s training FLOPs"
    return {
        EQUAL_BUDGET: "Equal budget: every strategy gets the same training FLOPs",
        EQUAL_STEPS: f"Equal steps: every strategy runs as long as {MULTI_TASK}",
    }.get(view, view)
