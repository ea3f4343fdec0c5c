"""Masked language modelling of a caption, conditioned on its image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.errors import check_range


class TiedHead(nn.Module):
    """BERT's vocabulary head (arXiv 1810.04805): Linear, GELU, LayerNorm, then products with the token embeddings.

    Args:
        width: of what comes in.
        table: the token embeddings [V, D]. Only the shape is kept: they stay the encoder's.
    """

    def __init__(self, width: int, table: Tensor) -> None:
        super().__init__()
        vocabulary, inner = table.shape
        self.transform = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.LayerNorm(inner, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Logits [..., V] of `hidden` [..., width]."""
        return functional.linear(self.transform(hidden), table, self.bias)


def vocabulary_head(width: int, vocabulary_size: int, table: Tensor | None) -> nn.Module:
    """A `TiedHead` on a pretrained encoder's token embeddings; without any, LayerNorm and a matrix of its own."""
    if table is not None:
        return TiedHead(width, table)
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary_size))


def vocabulary_logits(head: nn.Module, hidden: Tensor, encoder: Any) -> Tensor:
    """Logits [..., V] in float32; a tied head reads the table `encoder.token_table()`."""
    logits: Tensor = head(hidden, encoder.token_table()) if isinstance(head, TiedHead) else head(hidden)
    return logits.float()


class MaskedLanguageObjective(nn.Module):
    """Predict masked caption tokens from the other tokens and the image.

    The vocabulary head runs on masked positions only; over all positions it would be a large part of a small model's
    FLOPs. The number of positions is a constant of the batch's shape, ⌈rate · T⌉ a caption, so that the cost of a step
    does not depend on chance; a caption with fewer maskable tokens leaves slots unused.
    Chosen tokens are always replaced by the mask token (BERT's 80/10/10 rule serves fine-tuning without masks, which
    does not happen here).

    Args:
        width: D of fused tokens.
        vocabulary_size: V.
        mask_id: id of the mask token.
        rate: share of a caption's tokens to mask, in (0, 1]. 0.15 is BERT's; short captions want more.
        frame_ids: further ids that are never masked, besides padding and the towers' own frame (start and end of a
            text).
        name: task name in ledger and logs.
        table: a pretrained encoder's token embeddings [V, D], to tie the head to; None = the head has its own matrix.
    """

    def __init__(
        self,
        width: int,
        vocabulary_size: int,
        mask_id: int,
        *,
        rate: float = 0.4,
        frame_ids: tuple[int, ...] = (),
        name: str = "masked_lm",
        table: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_range("rate", rate, 1e-6, 1.0, "it is the share of tokens that are masked, for example 0.4")
        self.name = name
        self.rate = rate
        self.mask_id = mask_id
        self.frame_ids = frame_ids
        self.head = vocabulary_head(width, vocabulary_size, table)

    def forward(self, features: Any) -> Tensor:
        def logits(hidden: Tensor) -> Tensor:
            return vocabulary_logits(self.head, hidden, features.encoder)

        return masked_loss(
            features["caption_tokens"],
            self.maskable(features),
            features.fused_tokens,
            logits,
            mask_id=self.mask_id,
            rate=self.rate,
        )

    def maskable(self, features: Any) -> Tensor:
        """[B, T] bool: real tokens of the captions outside the frame."""
        frame_ids = sorted({*self.frame_ids, *features.encoder.towers.frame_ids})
        return outside_frame(features["caption_tokens"], features.caption_mask, frame_ids)


def outside_frame(tokens: Tensor, real: Tensor, frame_ids: Iterable[int]) -> Tensor:
    """[B, T] bool: tokens [B, T] that are `real` [B, T] and none of `frame_ids`."""
    for frame_id in frame_ids:
        real = real & (tokens != frame_id)
    return real


def masked_loss(
    tokens: Tensor,
    maskable: Tensor,
    encode: Callable[[Tensor, Tensor], Tensor],
    head: Callable[[Tensor], Tensor],
    *,
    mask_id: int,
    rate: float,
) -> Tensor:
    """Cross-entropy of the tokens hidden by `mask_id`, mean over those hidden.

    Args:
        tokens: [B, T] int64.
        maskable: [B, T] bool.
        encode: masked tokens [B, T], positions [B, M] → the states [B, M, D] there.
        head: [B, M, D] → logits [B, M, V].
        rate: share of the maskable tokens that are hidden, in (0, 1].
    """
    positions, chosen = choose_positions(maskable, rate)
    originals = tokens.gather(1, positions)  # [B, M]
    masked = tokens.scatter(1, positions, torch.where(chosen, mask_id, originals))
    logits = head(encode(masked, positions)).float()  # [B, M, V]
    losses = functional.cross_entropy(logits.flatten(0, 1), originals.flatten(), reduction="none")
    used = chosen.flatten().to(losses.dtype)
    return (losses * used).sum() / used.sum().clamp_min(1.0)


def choose_positions(maskable: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Choose ⌈rate · n⌉ of each row's n maskable positions at random (torch's global generator).

    Args:
        maskable: [B, T] bool.
        rate: in (0, 1].

    Returns:
        positions [B, M] int64, distinct within a row, with M = ⌈rate · T⌉; and chosen [B, M] bool, False at unused
        slots.
    """
    length = maskable.shape[1]
    slots = max(1, math.ceil(rate * length))
    keys = torch.rand(maskable.shape, device=maskable.device).masked_fill(~maskable, -1.0)
    positions = keys.topk(slots, dim=1).indices  # [B, M]
    wanted = torch.ceil(rate * maskable.sum(1, keepdim=True) - 1e-6)  # [B, 1]
    chosen = torch.arange(slots, device=maskable.device)[None] < wanted
    return positions, chosen
