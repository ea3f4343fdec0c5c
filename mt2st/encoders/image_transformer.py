"""A vision transformer alone, by transformers: trained from scratch on small pictures, or a ViT checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import transformers
from torch import Tensor, nn

from mt2st.batch import Batch
from mt2st.encoders._lazy import LazyFeatures
from mt2st.encoders.fine_tuning import Part, Source
from mt2st.encoders.hugging_face import load_model
from mt2st.encoders.normalisation import PixelNormalizer
from mt2st.encoders.preprocessing import HALF, image_processor, mean_and_std
from mt2st.errors import Mt2stError


@dataclass(frozen=True)
class ImageConfig:
    """Size of a vision transformer trained from scratch."""

    image_size: int = 8
    """height and width in pixels; a multiple of patch_size"""
    patch_size: int = 2
    """height and width of a patch, in pixels"""
    width: int = 48
    """width D of tokens"""
    layers: int = 3
    """transformer layers"""
    heads: int = 4
    """attention heads"""
    mlp_ratio: float = 2.0
    """hidden width of MLPs as a multiple of the width"""
    position_std: float = 0.5
    """standard deviation of initial position embeddings; with ViT's own 0.02 the mean token hardly knows of places"""

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.image_size % self.patch_size or self.image_size < self.patch_size:
            raise Mt2stError(
                f"image_size = {self.image_size} is no multiple of patch_size = {self.patch_size}; choose a patch that "
                "divides it"
            )
        if self.heads < 1 or self.width % self.heads:
            raise Mt2stError(
                f"width = {self.width} is no multiple of heads = {self.heads}; choose heads that divide it"
            )


class EncodedImage(NamedTuple):
    """What the transformer makes of a picture."""

    tokens: Tensor  # [B, P, D], class token left out
    embedding: Tensor  # [B, D], mean of the tokens


class ImageEncoder(nn.Module):
    """A `ViTModel` with the features that objectives pull from. Build it with `ImageEncoder.small` or `.pretrained`.

        encoder = ImageEncoder.small(ImageConfig(image_size=8, patch_size=2))
        encoder.features({"pixels": pixels}).embedding      # [B, D]

    Pixels are normalised as the checkpoint's image processor says; without one, values end up in [-1, 1].
    The embedding is the mean of the patch tokens: with few steps it trains better than the class token.
    """

    def __init__(
        self, model: Any, *, loaded: bool = False, statistics: tuple[Sequence[float], Sequence[float]] = (HALF, HALF)
    ) -> None:
        super().__init__()
        self._loaded = loaded
        self.model = model
        self.image_size, self.patch_size = int(model.config.image_size), int(model.config.patch_size)
        self.width = int(model.config.hidden_size)
        self.patches = (self.image_size // self.patch_size) ** 2  # P
        self.normalize = PixelNormalizer(self.image_size, *statistics)

    @classmethod
    def small(cls, config: ImageConfig) -> ImageEncoder:
        """A new one with weights from torch's global generator."""
        sizes = transformers.ViTConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=round(config.mlp_ratio * config.width),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        model = transformers.ViTModel(sizes, add_pooling_layer=False, use_mask_token=True)
        nn.init.normal_(model.embeddings.position_embeddings, std=config.position_std)
        return cls(model)

    @classmethod
    def pretrained(cls, name: str, revision: str | None = None, *, weights: bool = True) -> ImageEncoder:
        """A ViT checkpoint: a Hub name, or a folder that `save_pretrained` wrote (safetensors).

        `weights` False: fresh ones; the folder need hold no others.

        Raises:
            Mt2stError: it cannot be loaded, or it is another architecture than ViT.
        """
        model = load_model(name, revision, weights)
        if not isinstance(model, transformers.ViTModel):
            raise Mt2stError(
                f"{name!r} is a {model.config.model_type} model, not a ViT; give a checkpoint whose config says "
                "model_type vit"
            )
        if model.embeddings.mask_token is None:
            model.embeddings.mask_token = nn.Parameter(
                model.embeddings.cls_token.detach().new_zeros(model.embeddings.cls_token.shape)
            )
        settings = image_processor(name, revision)
        return cls(model, loaded=True, statistics=mean_and_std(settings, "vit") if settings else (HALF, HALF))

    def parts(self) -> dict[str, Part]:
        """What can be tuned or frozen: "image"."""
        return {"image": Part(self.model, self._loaded, Source(self, "encode", None))}

    def features(self, batch: Batch) -> ImageFeatures:
        """Lazy features of one batch; nothing is computed before something asks."""
        return ImageFeatures(self, batch)

    def encode(self, pixels: Tensor, hidden: Tensor | None = None) -> EncodedImage:
        """Encode pixels [B, 3, S, S], uint8 or float in [0, 255].

        `hidden` [B, P] bool: patches replaced by the mask token.
        """
        found = self.model(pixel_values=self.normalize(pixels), bool_masked_pos=hidden)
        tokens = found.last_hidden_state[:, 1:]
        return EncodedImage(tokens, tokens.mean(1))


class ImageFeatures(LazyFeatures):
    """Features of one batch of `pixels` [B, 3, S, S]."""

    encoder: ImageEncoder

    @cached_property
    def embedding(self) -> Tensor:
        """[B, D]."""
        return self.encoder.encode(self["pixels"]).embedding
