"""STL: single-task training, the reference without auxiliaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mt2st.schedules import Off, Schedule


@dataclass(frozen=True)
class SingleTask:
    """STL: the primary task alone."""

    name: ClassVar[str] = "STL"
    position: ClassVar[int] = 0

    learning_rate: float = 2e-3
    """peak learning rate"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Off()
