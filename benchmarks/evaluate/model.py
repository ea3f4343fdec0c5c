"""A model of an image tower and a text tower, with the preprocessing that belongs to its weights.

Shapes: B images or texts, S image side in pixels, T tokens, E width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class DualModel:
    """Towers that place images and texts in one space.

    Attributes:
        towers: `mt2st.encoders.Towers`, in evaluation mode.
        transform: a PIL image (RGB, any size) → [3, S, S], as the towers' `encode_image` takes it.
    """

    towers: Any
    transform: Callable[[Any], Tensor]

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return next(self.towers.parameters()).device

    @property
    def facts(self) -> dict[str, int]:
        """What a record says of the model, besides its name: parameters, image side in pixels, embedding width."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.towers.parameters()),
            "image_size": self.towers.image_size,
            "embedding_width": self.towers.embedding_width,
        }

    def to(self, device: str) -> None:
        """Bring the towers to a device."""
        self.towers.to(device)

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] of `transform` → [B, E] float32, unit length."""
        return nn.functional.normalize(self.towers.encode_image(pixels.to(self.device)).embedding.float(), dim=-1)

    @torch.inference_mode()
    def encode_texts(self, tokens: Tensor) -> Tensor:
        """[B, T] token ids, padded → [B, E] float32, unit length."""
        return nn.functional.normalize(self.towers.encode_text(tokens.to(self.device)).embedding.float(), dim=-1)
