"""From stored pixels to what a tower's weights expect. Shapes as in `mt2st.batch`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mt2st.errors import Mt2stError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's RGB normalisation, arXiv 2103.00020
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelNormalizer(nn.Module):
    """uint8 RGB [B, 3, S, S] → (pixels / 255 − mean) / std, float.

    Does *not* resize: images of another size are an error.

    Args:
        image_size: S, what the tower takes, in pixels.
        mean: of the three channels, in units of full brightness.
        std: standard deviations of the three channels, in the same units.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.image_size = image_size
        self.register_buffer("mean", (255 * torch.tensor(tuple(mean))).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", (1 / (255 * torch.tensor(tuple(std)))).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        if (height, width) != (self.image_size, self.image_size):
            raise Mt2stError(
                f"images are {height}×{width} px, but these towers take {self.image_size}×{self.image_size}; "
                f"prepare the data with image_size={self.image_size}"
            )
        return self.scaled(pixels)

    def scaled(self, pixels: Tensor) -> Tensor:
        """The same for images of any size, for towers that are given reduced ones on purpose."""
        images, _, height, width = pixels.shape
        channels_last = pixels.permute(0, 2, 3, 1)
        if not channels_last.is_contiguous():
            return (pixels.to(self.mean.dtype) - self.mean) * self.scale
        # As the store has them. A whole line of pixels against the channels repeated is several times as fast as
        # three values against three, and the same to the last bit.
        lines = channels_last.reshape(images, height, 3 * width).to(self.mean.dtype)
        mean, scale = (channels.flatten().repeat(width) for channels in (self.mean, self.scale))
        return ((lines - mean) * scale).view(images, height, width, 3).permute(0, 3, 1, 2)
