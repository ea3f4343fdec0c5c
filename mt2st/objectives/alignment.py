"""Alignment of a denoiser's middle features with a frozen image encoder's features of the clean picture.

Source: REPA, arXiv 2410.06940.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class AlignmentObjective(nn.Module):
    """1 − cosine between the projected bottleneck and the teacher's tokens, place by place, mean over places.

    The teacher's square grid of tokens is averaged to the bottleneck's size. The teacher is frozen: it gets no
    gradient, and the ledger counts its forward pass, for it is run.

    Args:
        width: channels of the bottleneck.
        teacher: an image encoder with `encode(pixels).tokens` [B, P, D] and `width` D, P a square number.
        name: task name in ledger and logs.
    """

    def __init__(self, width: int, teacher: Any, *, name: str = "alignment") -> None:
        super().__init__()
        self.name = name
        self.teacher = teacher.requires_grad_(False).eval()
        self.project = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.SiLU(), nn.Conv2d(2 * width, teacher.width, 1))

    def train(self, mode: bool = True) -> AlignmentObjective:
        """As `nn.Module.train`; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, features: Any) -> Tensor:
        bottleneck = features.bottleneck  # [B, C, h, w]
        with torch.no_grad():
            tokens = self.teacher.encode(features["pixels"]).tokens  # [B, P, D]
        side = round(tokens.shape[1] ** 0.5)
        grid = tokens.transpose(1, 2).unflatten(2, (side, side))  # [B, D, √P, √P]
        wanted = functional.adaptive_avg_pool2d(grid, bottleneck.shape[-2:])
        return 1 - functional.cosine_similarity(self.project(bottleneck).float(), wanted, dim=1).mean()
