"""Diminish: gradual fading with a cut-off (arXiv 2406.18038; the cut-off is ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

from benchmarks.strategies import Each, each
from mt2st.schedules import Diminish, Schedule

Own = TypeVar("Own", bound="Fading")


@dataclass(frozen=True)
class Fading:
    """The knobs of fading."""

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

    @classmethod
    def trials(cls: type[Own], learning_rate: float) -> tuple[Own, ...]:
        return (
            cls(learning_rate, 1.0, rate=3.0),
            cls(2 * learning_rate, 1.0, rate=3.0),
            cls(2 * learning_rate, 0.3, rate=3.0),
            cls(learning_rate, 1.0, rate=6.0, shape=2.0),
        )


@dataclass(frozen=True)
class Diminishing(Fading):
    """Diminish: auxiliaries fade as γ₀·exp(−rate·t^shape) and stop below the cut-off."""

    name: ClassVar[str] = "Diminish"
    position: ClassVar[int] = 2

    def schedule(self, auxiliary: str) -> Schedule:
        return self.fade(auxiliary)
