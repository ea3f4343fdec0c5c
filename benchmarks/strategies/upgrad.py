"""UPGrad: gradients projected onto the cone of no conflict (arXiv 2406.16232)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.strategies._balanced import WeighedAndBalanced

if TYPE_CHECKING:
    from mt2st.balancing import Balancer


@dataclass(frozen=True)
class UnconflictingProjections(WeighedAndBalanced):
    """UPGrad: no task's gradient may raise another task's loss."""

    name: ClassVar[str] = "UPGrad"

    def balancer(self, tasks: tuple[str, ...]) -> Balancer:
        from mt2st.balancing import UPGrad

        return UPGrad(tasks)
