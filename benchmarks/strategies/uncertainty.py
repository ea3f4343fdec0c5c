"""Uncertainty weighting: a learned variance weighs each loss (arXiv 1705.07115)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.strategies._balanced import Balanced

if TYPE_CHECKING:
    from mt2st.balancing import Balancer


@dataclass(frozen=True)
class UncertaintyWeighted(Balanced):
    """Uncertainty weighting: each loss is weighed by a learned variance."""

    name: ClassVar[str] = "Uncertainty weighting"

    def balancer(self, tasks: tuple[str, ...]) -> Balancer:
        from mt2st.balancing import UncertaintyWeighting

        return UncertaintyWeighting(tasks)
