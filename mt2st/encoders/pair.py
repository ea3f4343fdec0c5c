"""Towers put together of two halves: the images of one model, the texts of another, or both of a dual model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mt2st.encoders import TowerOutput, text_reader
from mt2st.encoders.fine_tuning import Part, Source
from mt2st.encoders.reduced_images import NO_REDUCED_IMAGES
from mt2st.errors import Mt2stError


class PairTowers(nn.Module):
    """An image half and a text half as `Towers`.

    A *pair* of two models gets new linear projections to a common width, which are trained, and starts at CLIP's
    temperature. A *dual* model's halves have the same embedding space already, and bring temperature and bias.

    Args:
        image: a module with `encode_image`, `image_size`, `normalize` and `pretrained`.
        text: a module with `encode_text`, `tokenize`, the attributes that `Towers` names of its text side, and
            `pretrained`.
        embedding_width: E of a pair; None = the halves are those of a dual model.
        logit_scale: a dual model's log-temperature.
        logit_bias: a dual model's bias of the sigmoid loss, where it has one.
    """

    def __init__(
        self,
        image: Any,
        text: Any,
        *,
        embedding_width: int | None = 256,
        logit_scale: Tensor | None = None,
        logit_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.normalize, image.normalize = image.normalize, nn.Identity()  # one place, as in other towers
        self.image_size: int = image.image_size
        self.context_length: int = text.context_length
        self.vocabulary_size: int = text.vocabulary_size
        self.pad_id: int = text.pad_id
        self.mask_id: int = text.mask_id
        self.frame_ids: tuple[int, ...] = text.frame_ids
        self.image_projection: nn.Module = nn.Identity()
        self.text_projection: nn.Module = nn.Identity()
        self.dual = embedding_width is None
        image_output, text_output = self._measured()
        self.image_width, self.text_width = image_output.tokens.shape[-1], text_output.tokens.shape[-1]
        self.embedding_width = embedding_width or image_output.embedding.shape[-1]
        if embedding_width is not None:
            self.image_projection = nn.Linear(image_output.embedding.shape[-1], embedding_width, bias=False)
            self.text_projection = nn.Linear(text_output.embedding.shape[-1], embedding_width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07))) if logit_scale is None else logit_scale
        self.logit_bias = logit_bias

    @torch.no_grad()
    def _measured(self) -> tuple[TowerOutput, TowerOutput]:
        """What both halves make of one image and one text."""
        training = self.training
        self.eval()
        image = self.encode_image(torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.uint8))
        text = self.encode_text(self.tokenize(["a"]))
        self.train(training)
        return image, text

    def parts(self) -> dict[str, Part]:
        """What can be tuned or frozen: "image", "text" and "temperature"; a pair's projections are always trained."""
        temperature = nn.ParameterList([each for each in (self.logit_scale, self.logit_bias) if each is not None])
        return {
            "image": Part(self.image, self.image.pretrained, Source(self, "image_output", None)),
            "text": Part(self.text, self.text.pretrained, Source(self.text, text_reader(self.text), self.pad_id)),
            "temperature": Part(temperature, self.dual and self.image.pretrained),
        }

    def token_table(self) -> Tensor | None:
        """The token embeddings [V, D] of a pretrained text half, to which a language-model head is tied; else None."""
        table: Tensor | None = self.text.token_table()
        return table

    def encode_image(self, pixels: Tensor) -> TowerOutput:
        tokens, embedding = self.image_output(pixels)
        return TowerOutput(tokens, self.image_projection(embedding))

    def image_output(self, pixels: Tensor) -> TowerOutput:
        """What the image half makes of pixels, before the projection."""
        output: TowerOutput = self.image.encode_image(self.normalize(pixels))
        return output

    def image_patches(self, side: int) -> int:
        """P of images of `side` pixels, where the image half takes reduced ones."""
        if not hasattr(self.image, "image_patches"):
            raise Mt2stError(NO_REDUCED_IMAGES.format(tower=type(self.image).__name__))
        patches: int = self.image.image_patches(side)
        return patches

    def encode_reduced_image(self, pixels: Tensor, kept: Tensor | None = None) -> TowerOutput:
        """As the image half's, projected."""
        tokens, embedding = self.image.encode_reduced_image(self.normalize.scaled(pixels), kept)
        return TowerOutput(tokens, self.image_projection(embedding))

    def encode_text(self, tokens: Tensor) -> TowerOutput:
        encoded, embedding = getattr(self.text, text_reader(self.text))(tokens)
        return TowerOutput(encoded, self.text_projection(embedding))

    def tokenize(self, texts: list[str]) -> Tensor:
        ids: Tensor = self.text.tokenize(texts)
        return ids
