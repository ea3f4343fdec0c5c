"""Convolutions in front of a small vision transformer, in place of its one patch projection."""

from __future__ import annotations

from torch import nn


class ConvolutionalStem(nn.Sequential):
    """Three 3×3 convolutions of stride 2 with BatchNorm: pixels [B, 3, H, W] → [B, width, H / 8, W / 8].

    Early convolutions make small vision transformers trainable from scratch (arXiv 2106.14881).
    """

    def __init__(self, width: int, first: int) -> None:
        channels = (3, first, 2 * first, width)
        layers: list[nn.Module] = []
        for index in range(3):
            layers += [
                nn.Conv2d(channels[index], channels[index + 1], kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels[index + 1]),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)
