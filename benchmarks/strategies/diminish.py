"""Diminish: gradual fading with a cut-off (arXiv 2406.18038; the cut-off is ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.schedules import Diminish, Schedule


@dataclass(frozen=True)
class Fading:
    """The knobs of fading."""

    axes: ClassVar[Mapping[str, Axis]] = {
        "shape": Axis(factor=2.0, low=0.25, high=8.0),
        "rate": Axis(factor=1.5, low=0.5, high=40.0),
    }

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """γ₀, weight of each auxiliary's loss at the start"""
    rate: Each = 5.0
    """η, decay per unit of progress^shape; 0 = never fades"""
    shape: Each = 1.0
    """ν, exponent of progress; above 1 stays high, then falls"""
    cutoff: Each = 0.05
    """share of γ₀ below which the weight is exactly 0; 0 = never cut off"""

    def fade(self, auxiliary: str) -> Diminish:
        """The fading of one auxiliary."""
        return Diminish(*(each(value, auxiliary) for value in (self.weight, self.rate, self.shape, self.cutoff)))


@dataclass(frozen=True)
class Diminishing(Fading):
    """Diminish: auxiliaries fade as γ₀·exp(−rate·t^shape) and stop below the cut-off."""

    name: ClassVar[str] = "Diminish"
    position: ClassVar[int] = 2
    recipe: ClassVar[str] = "default"

    def schedule(self, auxiliary: str) -> Schedule:
        return self.fade(auxiliary)
