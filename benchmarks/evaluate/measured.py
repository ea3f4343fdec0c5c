"""What a task found, and what encoding or generating took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Cost:
    """What encoding took.

    Attributes:
        items: how many were encoded.
        seconds: wall time of decoding, transforming and encoding together.
        flops: forward FLOPs of all items.
    """

    items: int = 0
    seconds: float = 0.0
    flops: int = 0

    def add(self, items: int, seconds: float, flops: int) -> None:
        """Add what some more items took."""
        self.items, self.seconds, self.flops = self.items + items, self.seconds + seconds, self.flops + flops

    def record(self) -> dict[str, float]:
        """For a record: the counts, forward FLOPs an item and items a second."""
        each = max(self.items, 1)
        return {
            "items": self.items,
            "seconds": self.seconds,
            "flops_per_item": self.flops / each,
            "items_per_second": self.items / self.seconds if self.seconds else 0.0,
        }


@dataclass
class Measured:
    """What one task found.

    Attributes:
        metrics: id → value.
        floors: name → metrics of what knows nothing, or no image.
        items: name → array over the task's items.
        vectors: name → array, for a file of embeddings.
        answers: for each question its id and the answer that was given.
        notes: facts for the record, such as the prompts.
    """

    metrics: dict[str, float]
    floors: dict[str, dict[str, float]] = field(default_factory=dict)
    items: dict[str, np.ndarray] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    answers: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
