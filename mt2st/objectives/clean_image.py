"""The clean picture at low resolution, from the bottleneck of a denoiser."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class CleanImageObjective(nn.Module):
    """A 1×1 convolution on the bottleneck predicts x_0, averaged down to the bottleneck's size.

    The loss is the mean squared error of values in [−1, 1].

    Args:
        width: channels of the bottleneck.
        channels: colour channels of the pictures.
        name: task name in ledger and logs.
    """

    def __init__(self, width: int, channels: int = 3, *, name: str = "clean_image") -> None:
        super().__init__()
        self.name = name
        self.head = nn.Conv2d(width, channels, kernel_size=1)

    def forward(self, features: Any) -> Tensor:
        bottleneck = features.bottleneck  # [B, C, h, w]
        wanted = functional.adaptive_avg_pool2d(features.clean, bottleneck.shape[-2:])
        return functional.mse_loss(self.head(bottleneck).float(), wanted)
