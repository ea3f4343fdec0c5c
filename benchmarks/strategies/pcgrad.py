"""PCGrad: gradient surgery (arXiv 2001.06782)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.strategies._balanced import WeighedAndBalanced

if TYPE_CHECKING:
    from mt2st.balancing import Balancer


@dataclass(frozen=True)
class ProjectedConflicts(WeighedAndBalanced):
    """PCGrad: gradients lose their parts against each other."""

    name: ClassVar[str] = "PCGrad"

    def balancer(self, tasks: tuple[str, ...]) -> Balancer:
        from mt2st.balancing import PCGrad

        return PCGrad(tasks)
