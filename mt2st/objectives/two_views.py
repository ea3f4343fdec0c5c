"""Two-view contrastive learning: two random views of one picture belong together (SimCLR, arXiv 2002.05709)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.errors import Mt2stError


class TwoViewObjective(nn.Module):
    """NT-Xent: among 2B views, find the other view of one's own picture. Cosine similarity / temperature, softmax.

    Views are made on the batch's device by `random_view`. Does *not* flip: digits, letters and arrows carry their
    direction.

    Args:
        width: D of the embedding.
        projection: width of the space in which views are compared; the projection is thrown away after training.
        temperature: > 0; smaller = near mistakes weigh more.
        name: task name in ledger and logs.
    """

    def __init__(self, width: int, *, projection: int = 32, temperature: float = 0.2, name: str = "two_views") -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise Mt2stError(f"temperature = {temperature!r} must be finite and > 0, for example 0.2")
        self.name, self.temperature = name, temperature
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection))

    def forward(self, features: Any) -> Tensor:
        pixels = features["pixels"]  # [B, 3, S, S]
        views = torch.cat([random_view(pixels), random_view(pixels)])
        places = functional.normalize(self.project(features.encoder.encode(views).embedding).float(), dim=-1)  # [2B, E]
        return two_view_loss(places, self.temperature)


def two_view_loss(places: Tensor, temperature: float) -> Tensor:
    """NT-Xent of unit vectors [2B, E] whose rows i and B + i are views of one picture."""
    logits = places @ places.T / temperature  # [2B, 2B]
    itself = torch.eye(len(places), dtype=torch.bool, device=places.device)
    other = torch.arange(len(places), device=places.device).roll(len(places) // 2)
    return functional.cross_entropy(logits.masked_fill(itself, float("-inf")), other)


def random_view(pixels: Tensor, *, shift: float = 0.15, contrast: float = 0.4, erase: float = 0.3) -> Tensor:
    """A random view of each picture: shifted, its contrast changed, a square set to the mean grey. Float in [0, 255].

    Args:
        pixels: [B, C, S, S], uint8 or float in [0, 255].
        shift: largest shift as a share of the side; the border is repeated. 0 = none.
        contrast: values are multiplied by 1 ± this. 0 = unchanged.
        erase: side of the square as a share of the picture's. 0 = nothing erased.
    """
    batch, _, side, _ = pixels.shape
    device = pixels.device
    images = pixels.float()
    reach = round(shift * side)
    places = torch.arange(side, device=device)
    offsets = torch.randint(-reach, reach + 1, (batch, 2, 1), device=device)
    rows = (places + offsets[:, 0]).clamp(0, side - 1)  # [B, S]
    columns = (places + offsets[:, 1]).clamp(0, side - 1)
    which = torch.arange(batch, device=device)[:, None, None]
    images = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    gain = 1 + contrast * (2 * torch.rand(batch, 1, 1, 1, device=device) - 1)
    images = (images * gain).clamp(0, 255)
    hole = round(erase * side)
    corner = torch.randint(0, side - hole + 1, (batch, 2, 1), device=device)
    in_rows = (places >= corner[:, 0]) & (places < corner[:, 0] + hole)  # [B, S]
    in_columns = (places >= corner[:, 1]) & (places < corner[:, 1] + hole)
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return torch.where(inside, images.mean((1, 2, 3), keepdim=True), images)
