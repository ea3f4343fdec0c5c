"""Encoder and objectives as one module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mt2st.batch import Batch
from mt2st.mixture import MT2ST


class JointModel(nn.Module):
    """Encoder and objectives as one module, so that a distributed wrapper sees one forward pass."""

    def __init__(self, encoder: Any, mixture: MT2ST) -> None:
        super().__init__()
        self.encoder = encoder
        self.mixture = mixture

    def forward(
        self, batches: Mapping[str, Batch], weights: Mapping[str, float], scope: Any = None
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.mixture(self.encoder.features, batches, weights, scope)
        return losses
