"""Staged: auxiliaries leave one after the other, evenly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies import Axis, Each, each
from mt2st.controls import Linear
from mt2st.errors import Mt2stError
from mt2st.schedules import Schedule


@dataclass(frozen=True)
class Staging:
    """Staged: auxiliaries leave one after the other, evenly, each along a line to zero or at once.

    The i-th of K leaves at end · i / K. Along a line its weight falls from where the one before it left.
    """

    name: ClassVar[str] = "Staged"
    position: ClassVar[int] = 7
    recipe: ClassVar[str] = "controls"
    axes: ClassVar[Mapping[str, Axis]] = {
        "end": Axis(step=0.15, low=0.1, high=1.0),
        "linear": Axis(choices=(False, True)),
    }

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight: Each = 1.0
    """weight of each auxiliary's loss at the start"""
    end: float = 0.8
    """progress in [0, 1] at which the last auxiliary leaves"""
    linear: bool = True
    """each falls along a line to zero; otherwise it keeps its weight until it leaves"""
    order: tuple[str, ...] = ()
    """auxiliaries, the first to leave first; empty = in the order of --auxiliaries"""

    def schedules(self, auxiliaries: Sequence[str]) -> dict[str, Schedule]:
        """Every auxiliary's schedule: where it leaves depends on how many there are.

        Raises:
            Mt2stError: `order` leaves an auxiliary out, or names one twice.
        """
        order = tuple(name for name in self.order or auxiliaries if name in auxiliaries)
        if sorted(order) != sorted(auxiliaries):
            raise Mt2stError(
                f"order = {' '.join(self.order)} must name each auxiliary once; they are {' '.join(auxiliaries)}"
            )
        ends = [self.end * (place + 1) / len(order) for place in range(len(order))]
        starts = [0.0, *ends[:-1]] if self.linear else ends
        leaving = dict(zip(order, zip(starts, ends, strict=True), strict=True))
        return {name: Linear(*leaving[name], each(self.weight, name)) for name in auxiliaries}
