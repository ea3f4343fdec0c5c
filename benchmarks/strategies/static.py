"""Static weights: MTL with a weight for each auxiliary, tuned one by one (Xin et al., NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.schedules import Constant, Schedule


@dataclass(frozen=True)
class StaticWeights:
    """Static weights: all tasks to the end, each auxiliary's weight tuned by itself."""

    name: ClassVar[str] = "Static weights"
    position: ClassVar[int] = 8
    recipe: ClassVar[str] = "controls"
    axes: ClassVar[Mapping[str, Axis]] = {"weight": Axis(factor=3.0, each=True)}

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss; the primary's is 1"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Constant(each(self.weight, auxiliary))
