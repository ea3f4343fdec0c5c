"""Batches, and the shape legend used all over the package.

Shape legend:
    B  batch: images, or rows of a text batch         P  image tokens (patches)
    T  text tokens                                    D  width of tokens
    E  width of embeddings                            V  text vocabulary
    A  answer vocabulary                              H, W  image height and width in pixels
    Q  queries          N  gallery items              k  results a query

A batch is a plain mapping from name to tensor, so that a new paradigm brings new names and no new type; the loop only
moves it to the device and takes its shapes. Vision-language batches use the names of `ImageTextBatch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]


class ImageTextBatch(TypedDict, total=False):
    """Names and shapes of a vision-language batch; a batch holds those that its stream provides."""

    pixels: Tensor  # [B, 3, H, W] uint8, RGB; normalised by the encoder
    small_pixels: Tensor  # [B, 3, h, w] uint8, in place of pixels where a stream shrinks images
    kept_patches: Tensor  # [B, K] int64, ascending; the image tower runs on these patches of each image alone
    caption_tokens: Tensor  # [B, T] int64, padded with the encoder's `pad_id`
    caption_group: (
        Tensor  # [B] int64; equal numbers = identical captions (positives of each other in contrastive learning)
    )
    question_tokens: Tensor  # [B, T] int64
    answer_targets: Tensor  # [B, A] float32 soft targets in [0, 1]; a row of zeros = no answer in the vocabulary


def shape_key(batch: Batch) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of a batch, hashable: two batches with the same key cost the same FLOPs."""
    return tuple((name, tuple(batch[name].shape)) for name in sorted(batch))


def pick(rows: Tensor, positions: Tensor) -> Tensor:
    """Of each item of `rows` [B, T, …] those at its `positions` [B, M] int64: [B, M, …]."""
    items, length = rows.shape[:2]
    starts = torch.arange(0, items * length, length, device=positions.device)
    chosen = rows.flatten(0, 1).index_select(0, (positions + starts[:, None]).flatten())
    return chosen.view(*positions.shape, *rows.shape[2:])
