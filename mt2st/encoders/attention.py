"""Self-attention without the copies of `nn.MultiheadAttention`, and made for short sequences on a CPU.

`nn.MultiheadAttention` moves the packed projection of queries, keys and values into another order of memory, picks the
three out of it, and in the backward pass fills three tensors of its size with zeros to add them up. Here they are views
of the projection. On a CPU torch's fused attention treats a few tokens badly: rows of scores that are shorter than a
vector register are exponentiated one number at a time, and two threads are slower than one. For short sequences three
batched products serve, with the scores of one key side by side, so that the softmax runs across rows.

Shapes: B sequences of T tokens of width E, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SHORT = 24
"""longest T of the way for short sequences; beyond it torch's fused attention is as fast on one thread, or faster"""


class PackedAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with a faster way for self-attention whose weights nobody asks for.

    Names, shapes and starts of parameters are the parent's, and so are results, to rounding. What the faster way does
    not serve (attention to another tensor, weights asked for, a key padding mask, nested tensors) goes the parent's.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As the parent's.

        Args:
            query: [B, T, E], and `key` and `value` the same tensor, for the faster way.
            key_padding_mask: None for the faster way.
            need_weights: False for the faster way.
            attn_mask: [T, T] or [B · H, T, T]: float, added to the scores, or bool, True at what is not attended to.
            average_attn_weights: of weights that are asked for.
            is_causal: False for the faster way, which reads the mask.
        """
        plain = query is key is value and query.ndim == 3 and not query.is_nested
        if need_weights or is_causal or key_padding_mask is not None or not plain:
            found: tuple[Tensor, Tensor | None] = super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
            return found
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask, float("-inf"))
        packed = functional.linear(query, self.in_proj_weight, self.in_proj_bias)  # [B, T, 3 · E]
        dropout = self.dropout if self.training else 0.0
        if not dropout and packed.shape[1] <= SHORT and packed.device.type == "cpu" and packed.dtype == torch.float32:
            mixed = _short(packed, self.num_heads, attn_mask)
        else:
            mixed = _fused(packed, self.num_heads, attn_mask, dropout)
        output: Tensor = self.out_proj(mixed)
        return output, None

    def _get_name(self) -> str:
        return nn.MultiheadAttention.__name__  # a model's printed form, which hashes cover, stays what it was


def pack_attention(model: nn.Module) -> None:
    """Give the self-attentions in `model` the faster way; those that it cannot serve stay as they are."""
    for module in model.modules():
        if type(module) is nn.MultiheadAttention and _plain(module):
            module.__class__ = PackedAttention


def _plain(attention: Any) -> bool:
    """Whether batches come first, one matrix projects all, and no keys or values are added."""
    added = attention.bias_k is not None or attention.bias_v is not None or attention.add_zero_attn
    return bool(attention.batch_first and attention.in_proj_weight is not None and not added)


def _fused(packed: Tensor, heads: int, mask: Tensor | None, dropout: float) -> Tensor:
    """torch's attention of a packed projection [B, T, 3 · E] → [B, T, E]."""
    rows, length, thrice = packed.shape
    if mask is not None and mask.ndim == 3:
        mask = mask.reshape(rows, heads, length, length)
    query, key, value = (part.view(rows, length, heads, -1).transpose(1, 2) for part in packed.chunk(3, dim=-1))
    mixed = functional.scaled_dot_product_attention(query, key, value, mask, dropout)  # [B, H, T, E / H]
    return mixed.transpose(1, 2).reshape(rows, length, thrice // 3)


def _short(packed: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """The same in batched products, a batch of B · H; scores are [B · H, T keys, T queries]."""
    rows, length, thrice = packed.shape
    inner = thrice // 3 // heads
    parts = packed.view(rows, length, 3, heads, inner).permute(2, 0, 3, 1, 4)
    query, key, value = parts.reshape(3, rows * heads, length, inner).unbind(0)
    if mask is None:
        scores = torch.bmm(key * inner**-0.5, query.transpose(1, 2))
    else:
        # Finite, for a softmax over −∞ alone is not a number; a query that may look at nothing gets the mean of values.
        mask = mask.clamp_min(torch.finfo(mask.dtype).min / 2)
        scores = torch.baddbmm(mask.transpose(-2, -1), key, query.transpose(1, 2), alpha=inner**-0.5)
    mixed = torch.bmm(scores.softmax(1).transpose(1, 2), value)  # [B · H, T, E / H]
    return mixed.view(rows, heads, length, inner).transpose(1, 2).reshape(rows, length, heads * inner)
