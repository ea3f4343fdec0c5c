"""Late: auxiliaries come late. The control for the order, the reverse of Switch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.controls import Late
from mt2st.schedules import Schedule


@dataclass(frozen=True)
class Coming:
    """Late: no auxiliaries until a point, then all at full weight to the end."""

    name: ClassVar[str] = "Late"
    position: ClassVar[int] = 6
    recipe: ClassVar[str] = "controls"
    axes: ClassVar[Mapping[str, Axis]] = {"at": Axis(step=0.2, low=0.1, high=0.9)}

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss once it runs"""
    at: Each = 0.6
    """progress in [0, 1] from which the auxiliaries run; 0 = MTL"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Late(each(self.at, auxiliary), each(self.weight, auxiliary))
