"""Fusion: text tokens that have seen the image. A small transformer over multiplied embeddings.

Shapes as in `mt2st.batch`. Multiplication comes first because it lets the question select what to read off the image;
in our trials on easy-VQA, cross-attention alone stayed at the yes/no prior for hundreds of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mt2st.batch import pick
from mt2st.encoders import TowerOutput
from mt2st.encoders.attention import attend
from mt2st.encoders.last_block import TextOutput
from mt2st.errors import Mt2stError


class FusionBlock(nn.Module):
    """Pre-norm block: one attention, then an MLP.

    In the attention, text tokens attend to themselves, bidirectionally, and to the image tokens.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_text = nn.LayerNorm(width)
        self.norm_image = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, text: Tensor, image: Tensor, memory_mask: Tensor, positions: Tensor | None = None) -> Tensor:
        """Text tokens [B, T, D], or those at `positions` [B, M] alone: [B, M, D]."""
        normed = self.norm_text(text)
        memory = torch.cat([normed, self.norm_image(image)], dim=1)  # [B, T + P, D]
        if positions is not None:
            text, normed = pick(text, positions), pick(normed, positions)
        text = text + self.output(attend(self.query(normed), self.key_value(memory), self.heads, memory_mask))
        return text + self.mlp(text)


class Fusion(nn.Module):
    """Text tokens × image embedding, then `layers` blocks in which they read each other and the image tokens.

    Attention over text is bidirectional whatever the text tower does: a causal tower (CLIP's) gives a token its left
    context only, and the fusion adds the right one. That is how a causal tower serves masked language modelling; it
    needs at least one block, while a bidirectional tower also works with none.

    Attributes:
        width: D of the fused tokens.
    """

    def __init__(
        self, *, image_width: int, text_width: int, width: int, layers: int = 1, heads: int = 2, mlp_ratio: float = 2.0
    ) -> None:
        super().__init__()
        if width % heads:
            raise Mt2stError(f"fusion width = {width} is not divisible by heads = {heads}; choose a multiple")
        if layers < 0:
            raise Mt2stError(f"fusion layers = {layers} must be ≥ 0")
        self.width = width
        self.image_tokens = nn.Linear(image_width, width)
        self.image_pooled = nn.Linear(image_width, width)
        self.text_tokens = nn.Linear(text_width, width)
        self.text_pooled = nn.Linear(text_width, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(FusionBlock(width, heads, mlp_ratio) for _ in range(layers))
        self.joint = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, image: Tensor, text: Tensor, text_mask: Tensor, image_of: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            image: image tokens [B images, P, image_width].
            text: text tokens [B, T, text_width].
            text_mask: [B, T] bool, True at real tokens.
            image_of: the image of each text, int64 [B]; None = they go one by one. What is computed of an image alone
                is computed once for all texts about it.

        Returns:
            fused tokens [B, T, D] and the joint embedding [B, D] of image and text.
        """
        pooled = self._pooled(image, image_of)
        tokens = self._tokens(image, pooled, text, text_mask, image_of)
        share = text_mask[:, None].to(tokens.dtype)  # [B, 1, T]: of each token in the mean of the real ones
        share = share / share.sum(-1, keepdim=True).clamp_min(1.0)
        question = self.text_pooled(torch.bmm(share, text).squeeze(1))
        joint: Tensor = self.joint(torch.bmm(share, tokens).squeeze(1) + question * pooled)
        return tokens, joint

    def tokens(self, image: Tensor, text: TowerOutput | TextOutput, text_mask: Tensor, positions: Tensor) -> Tensor:
        """The fused tokens [B, M, D] at `positions` [B, M], for who reads neither others nor the joint embedding."""
        pooled = self._pooled(image, None)
        if not self.blocks:
            return self._tokens(image, pooled, text.at(positions), text_mask, None)
        return self._tokens(image, pooled, text.tokens, text_mask, None, positions)

    def _pooled(self, image: Tensor, image_of: Tensor | None) -> Tensor:
        """The image of each text, in one vector: [B, D]."""
        pooled: Tensor = self.image_pooled(image.mean(dim=1))
        return pooled if image_of is None else pooled.index_select(0, image_of)

    def _tokens(
        self,
        image: Tensor,
        pooled: Tensor,
        text: Tensor,
        text_mask: Tensor,
        image_of: Tensor | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        tokens: Tensor = self.text_tokens(text)  # [B, T, D]
        tokens = self.norm(torch.addcmul(tokens, tokens, pooled[:, None]))
        if self.blocks:
            memory = self.image_tokens(image)
            memory = memory if image_of is None else memory.index_select(0, image_of)
            real = text_mask.new_ones(memory.shape[:2])
            hidden = ~torch.cat([text_mask, real], dim=1)[:, None]  # [B, 1, T + P]
            mask = torch.zeros(hidden.shape, dtype=tokens.dtype, device=tokens.device)
            mask = mask.masked_fill_(hidden, float("-inf"))
            for block in self.blocks[:-1]:
                tokens = block(tokens, memory, mask)
            tokens = self.blocks[-1](tokens, memory, mask, positions)
        return tokens
