"""Denoising: which noise was added to this picture? (DDPM's simple loss, arXiv 2006.11239, equation 14)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module, functional


class DenoisingObjective(Module):
    """Mean squared error between predicted and added noise. 0 = the noise is known; 1 = predicting its mean, 0.

    Args:
        name: task name in ledger and logs.
    """

    def __init__(self, *, name: str = "denoising") -> None:
        super().__init__()
        self.name = name

    def forward(self, features: Any) -> Tensor:
        return functional.mse_loss(features.predicted_noise.float(), features.noise)
