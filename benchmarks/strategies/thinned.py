"""Thinned: auxiliaries at random in a share of the steps, to the end. The control for *when* auxiliaries run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.controls import Thinned
from mt2st.schedules import Schedule


@dataclass(frozen=True)
class Thinning:
    """Thinned: each auxiliary at random in a share of the steps, at full weight, to the end."""

    name: ClassVar[str] = "Thinned"
    position: ClassVar[int] = 5
    recipe: ClassVar[str] = "default"
    axes: ClassVar[Mapping[str, Axis]] = {"share": Axis(step=0.2, low=0.1, high=0.9)}

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss at a step at which it runs"""
    share: Each = 0.5
    """probability that an auxiliary runs at a step; 1 = MTL"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Thinned(each(self.share, auxiliary), each(self.weight, auxiliary))
