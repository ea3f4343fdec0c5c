"""Rotation: by how many quarter turns was the picture turned? (RotNet, arXiv 1803.07728)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class RotationObjective(nn.Module):
    """Each picture is turned by 0, 90, 180 or 270 degrees, a quarter of the batch each, and the turn is classified.

    RotNet shows all four turns of every picture; one turn a picture costs a quarter of that.
    Does *not* suit pictures whose turn says nothing (letters o, symmetric textures): there the loss stays at ln 4.

    Args:
        width: D of the embedding.
        name: task name in ledger and logs.
    """

    def __init__(self, width: int, *, name: str = "rotation") -> None:
        super().__init__()
        self.name = name
        self.head = nn.Linear(width, 4)

    def forward(self, features: Any) -> Tensor:
        pixels = features["pixels"]  # [B, 3, S, S]
        turns = torch.randperm(len(pixels), device=pixels.device) % 4
        logits = self.head(features.encoder.encode(rotated(pixels, turns)).embedding)
        return functional.cross_entropy(logits.float(), turns)


def rotated(pixels: Tensor, turns: Tensor) -> Tensor:
    """Pixels [B, C, S, S], each turned by `turns` [B] quarter turns (0 to 3)."""
    all_turns = torch.stack([torch.rot90(pixels, turn, (2, 3)) for turn in range(4)])
    return all_turns[turns, torch.arange(len(pixels), device=pixels.device)]
