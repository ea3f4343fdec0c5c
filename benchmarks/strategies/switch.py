"""Switch: full weight, then a hard stop (arXiv 2406.18038)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.schedules import Schedule, Switch


@dataclass(frozen=True)
class Switching:
    """Switch: auxiliaries at full weight until a point, then none."""

    name: ClassVar[str] = "Switch"
    position: ClassVar[int] = 3
    recipe: ClassVar[str] = "default"
    axes: ClassVar[Mapping[str, Axis]] = {"at": Axis(step=0.15, low=0.1, high=0.9)}

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss before the switch"""
    at: Each = 0.4
    """progress in [0, 1] at which the auxiliaries stop"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Switch(each(self.at, auxiliary), each(self.weight, auxiliary))
