"""Sampled Diminish: fading by running less and less often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from benchmarks.strategies.diminish import Fading
from mt2st.schedules import Sampled, Schedule


@dataclass(frozen=True)
class SampledDiminishing(Fading):
    """Sampled Diminish: auxiliaries run at weight γ₀ with probability γ(t)/γ₀."""

    name: ClassVar[str] = "Sampled Diminish"
    position: ClassVar[int] = 4
    recipe: ClassVar[str] = "default"

    def schedule(self, auxiliary: str) -> Schedule:
        return Sampled(self.fade(auxiliary))
