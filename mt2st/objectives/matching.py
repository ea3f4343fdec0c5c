"""Image-text matching with hard negatives: does this caption belong to this image?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LOG_SCALE_LIMIT = math.log(100)


class MatchingObjective(nn.Module):
    """Binary classification of fused pairs: the true one, image with hard caption, caption with hard image.

    Negatives are drawn with probability ∝ exp(similarity · scale) among the pairs of the batch whose captions differ
    (ALBEF, arXiv 2107.07651); the similarities come from the embeddings, without gradient. A row whose batch holds no
    other caption has no negative and counts with its positive alone.

    Args:
        width: D of the joint embedding.
        name: task name in ledger and logs.
    """

    def __init__(self, width: int, *, name: str = "matching") -> None:
        super().__init__()
        self.name = name
        self.head = nn.Linear(width, 2)

    def forward(self, features: Any) -> Tensor:
        group = features["caption_group"]
        # Features are memoised, so they are asked for with gradient: other objectives share them.
        image_embedding, caption_embedding = features.image_embedding.detach(), features.caption_embedding.detach()
        with torch.no_grad():
            scale = features.encoder.towers.logit_scale.clamp(max=LOG_SCALE_LIMIT).exp()
            logits = scale * image_embedding @ caption_embedding.T  # [B images, B captions]
            same = group[:, None] == group[None, :]
            hard_caption, has_negative = hard_negatives(logits, same)
            hard_image, _ = hard_negatives(logits.T, same)
        image, text, mask = features.image_tokens, features.caption_tokens, features.caption_mask
        images = torch.cat([image, image, image.index_select(0, hard_image)])  # [3B, P, D]
        texts = torch.cat([text, text.index_select(0, hard_caption), text])  # [3B, T, D]
        masks = torch.cat([mask, mask.index_select(0, hard_caption), mask])
        _, joint = features.fuse(images, texts, masks)  # [3B, D]
        batch = image.shape[0]
        labels = torch.zeros(3 * batch, dtype=torch.int64, device=joint.device)
        labels[:batch] = 1
        counted = torch.cat([torch.ones_like(has_negative), has_negative, has_negative]).float()
        losses = functional.cross_entropy(self.head(joint).float(), labels, reduction="none")
        return (losses * counted).sum() / counted.sum()


def hard_negatives(logits: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """One negative a row, drawn ∝ softmax of its logits over the columns that are not `same`.

    Args:
        logits: [B, B]. same: [B, B] bool, True where the pair is a positive.

    Returns:
        column of the negative [B] int64 (any column where there is none), and whether there is one [B] bool.
    """
    has_negative = ~same.all(dim=1)
    # A diverged model shall end in a NaN loss, which the loop explains, and not in the sampler's error.
    logits = torch.nan_to_num(logits.float())
    weights = torch.softmax(logits.masked_fill(same, float("-inf")), dim=1)
    weights = torch.where(has_negative[:, None], weights + 1e-9 * ~same, torch.ones_like(weights))
    return torch.multinomial(weights, 1).squeeze(1), has_negative
