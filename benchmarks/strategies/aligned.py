"""Aligned: an auxiliary stops when its gradient leaves the primary's direction. See docs/methods/adaptive.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.listening import Aligned
from mt2st.schedules import Schedule


@dataclass(frozen=True)
class Aligning:
    """Aligned: auxiliaries at full weight until their gradients' cosine with the primary's is low."""

    name: ClassVar[str] = "Aligned"
    position: ClassVar[int] = 22
    recipe: ClassVar[str] = "adaptive"
    axes: ClassVar[Mapping[str, Axis]] = {"threshold": Axis(step=0.1, low=-0.3, high=0.5)}

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss before it stops"""
    threshold: Each = 0.05
    """cosine below which it stops; -1 = never, the cosine is only logged"""
    patience: int = 3
    """listenings whose cosines are averaged"""
    every: float = 0.1
    """progress between two listenings"""
    batches: int = 2
    """validation batches that gradients are averaged over"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Aligned(
            each(self.weight, auxiliary),
            self.every,
            self.batches,
            threshold=each(self.threshold, auxiliary),
            patience=self.patience,
        )
