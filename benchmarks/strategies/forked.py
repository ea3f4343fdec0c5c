"""Forked: an auxiliary stops when a short fork without it is no worse. See docs/methods/adaptive.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.listening import Forked
from mt2st.schedules import Schedule


@dataclass(frozen=True)
class Forking:
    """Forked: auxiliaries at full weight until short forks show no benefit for the primary."""

    name: ClassVar[str] = "Forked"
    position: ClassVar[int] = 21
    recipe: ClassVar[str] = "adaptive"
    axes: ClassVar[Mapping[str, Axis]] = {"margin": Axis(step=0.02, low=-0.1, high=0.1)}

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss before it stops"""
    margin: Each = 0.0
    """relative benefit on the primary's validation loss that an auxiliary must exceed"""
    fork: float = 0.02
    """progress that a fork lasts"""
    every: float = 0.2
    """progress between two forks"""
    patience: int = 3
    """forks whose benefits are averaged"""
    together: bool = True
    """one fork without all auxiliaries, which stop together; otherwise one for each"""
    batches: int = 4
    """validation batches of a comparison"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Forked(
            each(self.weight, auxiliary),
            self.every,
            self.batches,
            fork=self.fork,
            margin=each(self.margin, auxiliary),
            patience=self.patience,
            together=self.together,
        )
