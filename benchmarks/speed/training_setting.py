"""What every training beside its peers is told, and what it leaves: the same on all sides."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.records.machine import peak_resident_bytes
from mt2st.data.streams import EpochOrder

FILES, MEMORY = "files", "memory"  # where the photos are: image files (theirs) and the store (ours), or memory
OPEN_CLIP, DUAL = "open_clip", "dual"
CONTEXT = 32
MEAN_STD = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


@dataclass(frozen=True)
class Setting:
    """What is trained, by either loop."""

    folder: str
    """what `make_photos` wrote"""
    where: str = FILES
    """files or memory"""
    steps: int = 20
    warmup: int = 3
    """first steps that are not timed"""
    batch: int = 64
    width: int = 128
    layers: int = 4
    image_size: int = 64
    learning_rate: float = 1e-3
    threads: int = 1
    workers: int = 0
    """processes (theirs) or threads (ours) that make batches ahead"""
    log_every: int = 20
    nudge: bool = False
    """move every first weight by about one rounding, to see what rounding alone does to the losses"""
    trim: bool = False
    """ours alone: cut texts to the longest, as this suite does for causal towers"""
    seed: int = 0
    model: str = OPEN_CLIP
    """whose towers are trained: open_clip's, or transformers' dual encoder"""


class Held:
    """Batches that were made before: the best that a loader can do."""

    def __init__(self, orders: Sequence[np.ndarray], data: Any) -> None:
        made = {int(row): data[int(row)] for row in np.unique(np.concatenate(list(orders)))}
        self._batches = [
            (torch.stack([made[int(row)][0] for row in rows]), torch.stack([made[int(row)][1] for row in rows]))
            for rows in orders
        ]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self._batches)


def orders_of(setting: Setting, images: int) -> list[np.ndarray]:
    """Rows [batch] of each step."""
    order = EpochOrder(images, setting.seed, "photos")
    return [order(step * setting.batch, setting.batch) for step in range(setting.steps)]


def warm_steps(setting: Setting) -> int:
    """Steps in which the learning rate rises."""
    return max(1, setting.steps // 10)


def now() -> tuple[float, float]:
    """The clock, and processor seconds of this process; what workers took is not among them before they end."""
    return time.perf_counter(), time.process_time()


def found(setting: Setting, stamps: list[tuple[float, float]], losses: dict[int, float]) -> dict[str, Any]:
    """What a training leaves: images a second after the warm-up, peak memory, losses.

    `stamps` holds the time before each step and after the last one.
    """
    steps = len(stamps) - 1 - setting.warmup
    seconds, processor_seconds = (last - first for first, last in zip(stamps[setting.warmup], stamps[-1], strict=True))
    return {
        "images_per_second": steps * setting.batch / seconds,
        "seconds_per_step": seconds / steps,
        "processor_seconds_per_step": processor_seconds / steps,
        "peak_bytes": peak_resident_bytes(),
        "losses": [losses[step] for step in sorted(losses)],
    }


@torch.no_grad()
def nudge(model: nn.Module) -> None:
    """Move every weight by about one rounding."""
    for parameter in model.parameters():
        parameter.mul_(1 + torch.finfo(torch.float32).eps)
