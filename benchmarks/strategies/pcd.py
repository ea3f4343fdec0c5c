"""PCD: priority-constrained descent (arXiv 2606.29521)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.strategies import Axis
from benchmarks.strategies._balanced import Balanced

if TYPE_CHECKING:
    from mt2st.balancing import Balancer


@dataclass(frozen=True)
class PriorityConstrained(Balanced):
    """PCD: the primary's gradient, bent so that the others advance a little."""

    name: ClassVar[str] = "PCD"
    axes: ClassVar[Mapping[str, Axis]] = {"tau": Axis(factor=4.0, low=1e-3, high=1.0), **Balanced.axes}

    tau: float = 0.02
    """share of its own progress that each auxiliary is granted, in [0, 1]; 0 = it must only not be harmed"""
    beta: float = 0.999
    """decay of the moving average that normalises gradients; 0 = this step alone"""

    def balancer(self, tasks: tuple[str, ...]) -> Balancer:
        from mt2st.balancing import PCD

        return PCD(tasks, tau=self.tau, beta=self.beta)
