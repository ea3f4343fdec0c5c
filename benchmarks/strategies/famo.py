"""FAMO: all log-losses fall at about one rate (arXiv 2306.03792)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.strategies import Axis
from benchmarks.strategies._balanced import Balanced

if TYPE_CHECKING:
    from mt2st.balancing import Balancer


@dataclass(frozen=True)
class FastAdaptive(Balanced):
    """FAMO: weights that let all log-losses fall at one rate."""

    name: ClassVar[str] = "FAMO"
    axes: ClassVar[Mapping[str, Axis]] = {
        **Balanced.axes,
        "logit_learning_rate": Axis(factor=4.0, low=1e-4, high=10.0),
    }

    logit_learning_rate: float = 0.025
    """learning rate of the weights' logits"""
    logit_decay: float = 1e-3
    """weight decay of the logits; 0 = they may drift without limit"""

    def balancer(self, tasks: tuple[str, ...]) -> Balancer:
        from mt2st.balancing import FAMO

        return FAMO(tasks, learning_rate=self.logit_learning_rate, weight_decay=self.logit_decay)
