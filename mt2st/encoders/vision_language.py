"""The vision-language encoder: towers + fusion, and the lazy features that objectives pull from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.batch import Batch
from mt2st.encoders import TowerOutput, Towers, text_reader
from mt2st.encoders._lazy import LazyFeatures
from mt2st.encoders.fine_tuning import Part
from mt2st.encoders.fusion import Fusion
from mt2st.encoders.last_block import TextOutput
from mt2st.encoders.reduced_images import NO_REDUCED_IMAGES
from mt2st.errors import Mt2stError


class VisionLanguageEncoder(nn.Module):
    """Two towers and a fusion transformer. `features(batch)` is all that objectives see of it."""

    towers: Towers

    def __init__(
        self, towers: Towers, *, fusion_width: int = 64, fusion_layers: int = 1, fusion_heads: int = 2
    ) -> None:
        super().__init__()
        self.towers = towers
        self.fusion = Fusion(
            image_width=towers.image_width,
            text_width=towers.text_width,
            width=fusion_width,
            layers=fusion_layers,
            heads=fusion_heads,
        )

    def parts(self) -> Mapping[str, Part]:
        """The towers' parts that can be tuned or frozen; towers that name none have none."""
        parts: Mapping[str, Part] = getattr(self.towers, "parts", dict)()
        return parts

    def token_table(self) -> Tensor | None:
        """The token embeddings [V, D] of a pretrained text tower, to which a language-model head is tied; else None."""
        table: Tensor | None = getattr(self.towers, "token_table", lambda: None)()
        return table

    def image_patches(self, side: int) -> int:
        """Patches P of images of `side` pixels; asked by streams that reduce images (`mt2st.training.economy`).

        Raises:
            Mt2stError: the image tower takes no reduced images, or its patches do not divide the side.
        """
        towers: Any = self.towers
        if not hasattr(towers, "image_patches"):
            raise Mt2stError(NO_REDUCED_IMAGES.format(tower=type(towers).__name__))
        patches: int = towers.image_patches(side)
        return patches

    def features(self, batch: Batch) -> VisionLanguageFeatures:
        """Lazy features of one batch; nothing is computed before something asks."""
        return VisionLanguageFeatures(self, batch)


class VisionLanguageFeatures(LazyFeatures):
    """Features of one batch of images, captions and questions.

    A batch may hold fewer images than questions: `question_image` [B questions] then says which image each question is
    about, and every image is encoded once.
    """

    encoder: VisionLanguageEncoder

    @cached_property
    def _image(self) -> TowerOutput:
        towers: Any = self.encoder.towers
        if "small_pixels" in self.batch or "kept_patches" in self.batch:
            pixels = self["small_pixels" if "small_pixels" in self.batch else "pixels"]
            reduced: TowerOutput = towers.encode_reduced_image(pixels, self.batch.get("kept_patches"))
            return reduced
        output: TowerOutput = towers.encode_image(self["pixels"])
        return output

    @cached_property
    def _caption(self) -> TowerOutput | TextOutput:
        return self.read_text(self["caption_tokens"])

    @property
    def image_tokens(self) -> Tensor:
        """[B, P, D]."""
        return self._image.tokens

    @property
    def caption_tokens(self) -> Tensor:
        """[B, T, D]."""
        return self._caption.tokens

    @cached_property
    def image_embedding(self) -> Tensor:
        """[B, E], unit length."""
        return functional.normalize(self._image.embedding.float(), dim=-1)

    @cached_property
    def caption_embedding(self) -> Tensor:
        """[B, E], unit length."""
        return functional.normalize(self._caption.embedding.float(), dim=-1)

    @cached_property
    def caption_mask(self) -> Tensor:
        """[B, T] bool, True at real tokens."""
        return self.text_mask(self["caption_tokens"])

    @cached_property
    def question_joint(self) -> Tensor:
        """[B questions, D]: image and question, fused."""
        tokens = self["question_tokens"]
        text = self.read_text(tokens).tokens
        joint: Tensor = self.encoder.fusion(
            self.image_tokens, text, self.text_mask(tokens), self.batch.get("question_image")
        )[1]
        return joint

    def read_text(self, tokens: Tensor) -> TowerOutput | TextOutput:
        """The text tower on tokens [B, T], which may be others than the batch's (masked ones, say); not memoised.

        Where the tower can, only what is read of the output is computed.
        """
        towers: Any = self.encoder.towers
        output: TowerOutput | TextOutput = getattr(towers, text_reader(towers))(tokens)
        return output

    def text_mask(self, tokens: Tensor) -> Tensor:
        """[B, T] bool, True at real tokens."""
        return torch.ne(tokens, self.encoder.towers.pad_id)

    def fused_tokens(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens [B, M, D] at `positions` [B, M] of texts [B, T] that have seen the batch's images [B]; not memoised.

        A text may have other tokens than the batch's, but as many.
        """
        return self.encoder.fusion.tokens(self.image_tokens, self.read_text(tokens), self.text_mask(tokens), positions)

    def fuse(self, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Fused tokens [B, T, D] and joint embedding [B, D]; not memoised."""
        fused: tuple[Tensor, Tensor] = self.encoder.fusion(image_tokens, text_tokens, text_mask)
        return fused
