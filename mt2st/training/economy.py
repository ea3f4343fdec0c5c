"""Cheaper batches: fewer patches, smaller images, smaller batches. All are off unless a configuration asks for them.

    streams = economise(streams, mixture, config, encoder)

Three knobs of `TrainSettings`, for every strategy alike:

* `patch_dropout`: auxiliary batches name some of each image's patches, and the image tower runs on those alone, as in
  FLIP (arXiv 2212.00794). A stream that the primary task draws from keeps all, for its features are shared.
* `low_resolution_until`: images are shrunk in the first part of the training (CLIPA, arXiv 2305.07017).
* `small_batch_until`: in the first part of the training a batch is cut into parts, a step each.

Each batch stays a pure function of its index, so a resumed run needs no state. The ledger measures what really runs: a
batch with fewer patches or pixels has other shapes, which are another kind of step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mt2st.batch import Batch
from mt2st.errors import Mt2stError
from mt2st.mixture import MT2ST
from mt2st.randomness import generator
from mt2st.training.config import TrainConfig, TrainSettings
from mt2st.training.interface import Stream

PIXELS, SMALL_PIXELS, KEPT_PATCHES = "pixels", "small_pixels", "kept_patches"


def economise(streams: Mapping[str, Stream], mixture: MT2ST, config: TrainConfig, encoder: Any) -> dict[str, Stream]:
    """The streams with the batches that `config` asks for; the same streams where it asks for none.

    Args:
        encoder: where images are reduced, it has `image_patches(side)`; see `VisionLanguageEncoder`.

    Raises:
        Mt2stError: the run is ended by a budget, so the share of the training is not known from a batch's index; or
            the encoder takes no reduced images.
    """
    if not is_economical(config):
        return dict(streams)
    if config.total_flops and turns(config):
        raise Mt2stError(
            "low_resolution_until and small_batch_until need a fixed number of steps; use total_steps in place of "
            "total_flops, or set them to 0 or 1"
        )
    reduces = config.patch_dropout or config.low_resolution_until
    if reduces and not hasattr(encoder, "image_patches"):
        raise Mt2stError(
            f"{type(encoder).__name__} takes no reduced images; set patch_dropout and low_resolution_until to 0"
        )
    shared = mixture.primary.stream
    return {
        name: Economical(stream, name, config, encoder, drops=name != shared and config.patch_dropout > 0)
        for name, stream in streams.items()
    }


def is_economical(settings: TrainSettings) -> bool:
    """Whether any knob is on."""
    return bool(settings.patch_dropout or settings.low_resolution_until or settings.small_batch_until)


def turns(settings: TrainSettings) -> tuple[float, ...]:
    """Points of progress in (0, 1) from which on batches have other shapes."""
    points = {settings.low_resolution_until, settings.small_batch_until}
    return tuple(sorted(point for point in points if 0 < point < 1))


class Economical:
    """A stream whose batches are as cheap as the configuration says.

    Args:
        source: the stream.
        name: its name; another one draws other patches.
        encoder: see `economise`.
        drops: whether patches are left out.

    A batch with shrunk images has `small_pixels` [B, 3, h, w] in place of `pixels`, and one with fewer patches
    `kept_patches` [B, K] int64 beside them.
    """

    def __init__(self, source: Any, name: str, config: TrainConfig, encoder: Any, *, drops: bool) -> None:
        self.source, self.name = source, name
        self._config, self._encoder, self._drops = config, encoder, drops
        self._small_batches = _indexes_before(config) if config.small_batch_until else 0

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch `index`, of the process `rank` of `world`."""
        config = self._config
        progress = index // config.accumulation / config.total_steps if config.total_steps else 0.0
        if index < self._small_batches:
            parts = config.small_batch_parts
            source, part = divmod(index, parts)
        else:
            passed = math.ceil(self._small_batches / config.small_batch_parts)
            source, part, parts = index - self._small_batches + passed, 0, 1
        batch = self.source.batch(source, part * world + rank, parts * world)
        return self._reduced(batch, progress, index, rank, world)

    def first(self, progress: float, rank: int = 0, world: int = 1) -> Batch:
        """A batch of the shapes that batches have at `progress`."""
        return self._reduced(self.source.batch(0, rank, self.parts(progress) * world), progress, 0, rank, world)

    def parts(self, progress: float) -> int:
        """In how many parts a batch is cut at `progress`."""
        return self._config.small_batch_parts if progress < self._config.small_batch_until else 1

    def _reduced(self, batch: Batch, progress: float, index: int, rank: int, world: int) -> Batch:
        if PIXELS not in batch:
            return batch
        reduced = dict(batch)
        pixels = batch[PIXELS]
        if progress < self._config.low_resolution_until:
            pixels = reduced[SMALL_PIXELS] = shrunk(reduced.pop(PIXELS), self._config.low_resolution_scale)
        if self._drops:
            patches = self._encoder.image_patches(pixels.shape[-1])
            random = generator(self._config.seed, f"{self.name}/patches", index)
            reduced[KEPT_PATCHES] = kept_patches(
                random, len(pixels), patches, self._config.patch_dropout, rank=rank, world=world
            )
        return reduced


def shrunk(pixels: Tensor, scale: float) -> Tensor:
    """Images [B, 3, H, W] uint8 with sides `scale` times as long; each new pixel is the mean of those it covers."""
    height, width = (max(1, round(scale * side)) for side in pixels.shape[-2:])
    small = functional.interpolate(pixels.float(), size=(height, width), mode="area")
    return small.round_().clamp_(0, 255).to(torch.uint8)


def kept_patches(
    random: np.random.Generator, images: int, patches: int, dropout: float, *, rank: int = 0, world: int = 1
) -> Tensor:
    """Numbers [B, K] int64 of the patches that each image keeps, ascending; K = (1 − dropout) · P, rounded, at least 1.

    Args:
        images: B, of this process; all `world` of them draw the same numbers and take their own rows.
        patches: P.
    """
    count = max(1, round((1 - dropout) * patches))
    drawn = random.random((world * images, patches))[rank * images : (rank + 1) * images]
    return torch.from_numpy(np.sort(np.argsort(drawn, axis=1)[:, :count], axis=1))


def _indexes_before(config: TrainConfig) -> int:
    """How many batches are drawn while progress < small_batch_until: whole steps, decided as the loop does."""
    total, until = config.total_steps, config.small_batch_until
    if not total:
        return 10**15 if until >= 1 else 0
    step = math.ceil(until * total)
    while step > 0 and (step - 1) / total >= until:
        step -= 1
    while step < total and step / total < until:
        step += 1
    return step * config.accumulation
