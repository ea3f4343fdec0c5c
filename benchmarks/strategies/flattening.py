"""Flattening: an auxiliary stops when its own validation loss flattens. See docs/methods/adaptive.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.listening import Flattening
from mt2st.schedules import Schedule


@dataclass(frozen=True)
class Flattened:
    """Flattening: auxiliaries at full weight until their own validation loss flattens."""

    name: ClassVar[str] = "Flattening"
    position: ClassVar[int] = 20
    recipe: ClassVar[str] = "adaptive"
    axes: ClassVar[Mapping[str, Axis]] = {"threshold": Axis(factor=2.0, low=0.005, high=0.4)}

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss before it stops"""
    threshold: Each = 0.08
    """share of all that its loss gained so far that the window must bring, or it stops; 0 = when it brings nothing"""
    patience: int = 3
    """listenings of the window"""
    every: float = 0.05
    """progress between two listenings"""
    batches: int = 2
    """validation batches of a listening"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Flattening(
            each(self.weight, auxiliary),
            self.every,
            self.batches,
            patience=self.patience,
            threshold=each(self.threshold, auxiliary),
        )
