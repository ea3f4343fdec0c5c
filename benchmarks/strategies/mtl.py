"""MTL: multi-task training, the reference with auxiliaries to the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Each, each
from mt2st.schedules import Constant, Schedule


@dataclass(frozen=True)
class MultiTask:
    """MTL: all tasks to the end."""

    name: ClassVar[str] = "MTL"
    position: ClassVar[int] = 1
    recipe: ClassVar[str] = "default"

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss; the primary's is 1"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Constant(each(self.weight, auxiliary))
