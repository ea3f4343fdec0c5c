"""What strategies share that balance the tasks of a step by a method of their own. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.schedules import Constant, Schedule, Switch


@dataclass(frozen=True)
class Balanced:
    """The knobs of every one of them."""

    axes: ClassVar[Mapping[str, Axis]] = {"at": Axis(step=0.15, low=0.1, high=1.0)}

    learning_rate: float = 2e-3
    """peak learning rate"""
    at: Each = 1.0
    """progress in [0, 1] at which the auxiliaries stop, as in Switch; 1 = never"""

    def schedule(self, auxiliary: str) -> Schedule:
        return _until(each(self.at, auxiliary), 1.0)


@dataclass(frozen=True)
class WeighedAndBalanced(Balanced):
    """Where the scale of a loss matters to the method."""

    weight: Each = 1.0
    """weight of each auxiliary's loss; the primary's is 1"""

    def schedule(self, auxiliary: str) -> Schedule:
        return _until(each(self.at, auxiliary), each(self.weight, auxiliary))


def _until(at: float, weight: float) -> Schedule:
    return Constant(weight) if at == 1.0 else Switch(at, weight)
