"""STL: single-task training, the reference without auxiliaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from benchmarks.strategies import Axis
from mt2st.schedules import Off, Schedule
from mt2st.training.config import TrainSettings, off_at


@dataclass(frozen=True)
class SingleTask:
    """STL: the primary task alone, with a regularisation of its own: few labels overfit."""

    name: ClassVar[str] = "STL"
    position: ClassVar[int] = 0
    recipe: ClassVar[str] = "default"
    axes: ClassVar[Mapping[str, Axis]] = {
        "learning_rate": Axis(factor=2.0),
        "weight_decay": Axis(factor=10.0, start=0.01, high=10.0),
        "early_stopping": Axis(choices=(False, True)),
        "shift_pixels": Axis(choices=(0, 1, 2, 4)),
    }

    learning_rate: float = 2e-3
    """peak learning rate"""
    weight_decay: float | None = None
    """AdamW's weight decay under this strategy; None = that of --weight-decay"""
    early_stopping: bool = False
    """the weights of the best validation are tested, not the last ones; --keep-best does so for every strategy"""
    shift_pixels: int = off_at(0)
    """its training images are shifted at random by up to so many pixels; --shift-pixels does so for every strategy"""

    def schedule(self, auxiliary: str) -> Schedule:
        return Off()

    def train(self, settings: TrainSettings) -> TrainSettings:
        decay = settings.weight_decay if self.weight_decay is None else self.weight_decay
        return replace(
            settings,
            weight_decay=decay,
            keep_best=settings.keep_best or self.early_stopping,
            shift_pixels=max(settings.shift_pixels, self.shift_pixels),
        )
