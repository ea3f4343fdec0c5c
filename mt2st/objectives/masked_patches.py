"""Masked-patch reconstruction: the pixels of hidden patches from the visible ones (SimMIM, arXiv 2111.09886)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.errors import check_range


class MaskedPatchObjective(nn.Module):
    """Hide a share of the patches and predict their pixels with one linear layer.

    The loss is the mean absolute error of pixels in [-1, 1]. The same number of patches is hidden in every picture, so
    that a step's cost and the loss's noise do not depend on chance. Loss and head work on the hidden patches alone.

    Args:
        width: D of image tokens.
        patch_size: side of a patch in pixels.
        rate: share of patches to hide, in (0, 1]; SimMIM hides 0.6. 1 = nothing is left to see.
        name: task name in ledger and logs.
    """

    def __init__(self, width: int, patch_size: int, *, rate: float = 0.6, name: str = "masked_patches") -> None:
        super().__init__()
        check_range("rate", rate, 1e-6, 1.0, "it is the share of patches that are hidden, for example 0.6")
        self.name, self.rate, self.patch_size = name, rate, patch_size
        self.head = nn.Linear(width, 3 * patch_size**2)

    def forward(self, features: Any) -> Tensor:
        pixels = features["pixels"]  # [B, 3, S, S]
        wanted = patches_of(pixels, self.patch_size) / 127.5 - 1  # [B, P, 3·p²]
        count = max(1, round(self.rate * wanted.shape[1]))
        places = torch.rand(wanted.shape[:2], device=pixels.device).topk(count, dim=1).indices  # [B, M]
        hidden = torch.zeros(wanted.shape[:2], dtype=torch.bool, device=pixels.device).scatter(1, places, value=True)
        tokens = features.encoder.encode(pixels, hidden).tokens
        found = self.head(tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1])))  # [B, M, 3·p²]
        target = wanted.gather(1, places[..., None].expand(-1, -1, wanted.shape[-1]))
        return functional.l1_loss(found.float(), target)


def patches_of(pixels: Tensor, size: int) -> Tensor:
    """Pixels [B, C, S, S] cut into patches, row by row: float [B, (S/size)², C·size²]."""
    return functional.unfold(pixels.float(), kernel_size=size, stride=size).transpose(1, 2)
