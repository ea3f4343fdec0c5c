"""The two views in which strategies are compared, and the two strategies that the others are compared with."""

from __future__ import annotations

from typing import Final

SINGLE_TASK, MULTI_TASK = "STL", "MTL"
EQUAL_STEPS: Final = "equal-steps"
EQUAL_BUDGET: Final = "equal-budget"
VIEW_TITLES = {  # in the order in which they are shown, the fair one first
    EQUAL_BUDGET: "Equal budget: every strategy gets the same training FLOPs",
    EQUAL_STEPS: f"Equal steps: every strategy runs as long as {MULTI_TASK}",
}
