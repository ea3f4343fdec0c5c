"""Switch: full weight, then a hard stop (arXiv 2406.18038)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Each, each
from mt2st.schedules import Schedule, Switch


@dataclass(frozen=True)
class Switching:
    """Switch: auxiliaries at full weight until a point, then none."""

    name: ClassVar[str] = "Switch"
    position: ClassVar[int] = 3

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss before the switch"""
    at: Each = 0.4
    """progress in [0, 1] at which the auxiliaries stop"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Switch(each(self.at, auxiliary), each(self.weight, auxiliary))

    @classmethod
    def trials(cls, learning_rate: float) -> tuple[Switching, ...]:
        return (
            cls(learning_rate, 1.0, at=0.3),
            cls(2 * learning_rate, 1.0, at=0.3),
            cls(2 * learning_rate, 0.3, at=0.3),
            cls(learning_rate, 1.0, at=0.6),
        )
