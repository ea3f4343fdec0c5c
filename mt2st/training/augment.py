"""Augmentation of training images: each is shifted at random. Off unless a configuration asks for it.

    streams = augment(streams, config)

Each batch stays a pure function of its index, so a resumed run needs no state. Validation and test are never augmented.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mt2st.batch import Batch
from mt2st.errors import Mt2stError
from mt2st.randomness import generator
from mt2st.training.config import TrainConfig
from mt2st.training.interface import Stream

PIXELS = "pixels"


def augment(streams: Mapping[str, Stream], config: TrainConfig) -> dict[str, Stream]:
    """The streams with images shifted as `config` asks for; the same streams where it asks for none.

    Raises:
        Mt2stError: no stream has images.
    """
    if not config.shift_pixels:
        return dict(streams)
    check_images(streams)
    return {name: Shifted(stream, name, config) for name, stream in streams.items()}


def check_images(streams: Mapping[str, Stream]) -> None:
    """Whether there is anything to shift, by the first batch of each stream.

    Raises:
        Mt2stError: no stream has images.
    """
    if not any(PIXELS in stream.batch(0) for stream in streams.values()):
        names = ", ".join(sorted(streams))
        raise Mt2stError(f"shift_pixels shifts images, and no batch of {names} has any; set it to 0")


class Shifted:
    """A stream whose images are shifted by up to `shift_pixels` in each direction, uniformly; edges are repeated.

    Args:
        source: the stream; batches without `pixels` [B, 3, H, W] pass as they are.
        name: its name; another one draws other shifts.
    """

    def __init__(self, source: Stream, name: str, config: TrainConfig) -> None:
        self.source, self.name = source, name
        self._seed, self._most = config.seed, config.shift_pixels

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch `index`, of the process `rank` of `world`."""
        batch = self.source.batch(index, rank, world)
        if PIXELS not in batch:
            return batch
        images = len(batch[PIXELS])
        # All processes draw the same shifts and take their own rows, so their number changes nothing.
        drawn = generator(self._seed, f"{self.name}/shift", index).integers(
            -self._most, self._most, size=(world * images, 2), endpoint=True
        )
        own = torch.from_numpy(drawn[rank * images : (rank + 1) * images])
        return {**batch, PIXELS: shifted(batch[PIXELS], own)}


def shifted(pixels: Tensor, shifts: Tensor) -> Tensor:
    """Images [B, 3, H, W] moved by `shifts` [B, 2] pixels, down and right; edges are repeated."""
    height, width = pixels.shape[-2:]
    rows = (torch.arange(height)[None] - shifts[:, :1]).clamp_(0, height - 1)  # [B, H]
    columns = (torch.arange(width)[None] - shifts[:, 1:]).clamp_(0, width - 1)  # [B, W]
    images = torch.arange(len(pixels))[:, None, None, None]
    channels = torch.arange(pixels.shape[1])[None, :, None, None]
    return pixels[images, channels, rows[:, None, :, None], columns[:, None, None, :]]
