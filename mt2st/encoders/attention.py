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
        output: Tensor = self.out_proj(attend_packed(packed, self.num_heads, attn_mask, dropout))
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


def attend(query: Tensor, key_value: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """What queries read: [B, M, E].

    Args:
        query: [B, M, E].
        key_value: [B, T, 2 · E], keys before values.
        mask: [1 or B, 1 or M, T] float, added to the scores; None = nothing is hidden.
    """
    rows, count, width = query.shape
    length = key_value.shape[1]
    query = query.view(rows, count, heads, -1).transpose(1, 2)  # [B, H, M, E / H]
    mask = None if mask is None else mask.to(query.dtype)  # automatic mixed precision makes queries of another one
    if is_short(key_value):
        key, value = key_value.view(rows, length, 2, heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)
        if mask is not None:
            mask = mask[:, None].expand(rows, heads, count, length).flatten(0, 1)
        mixed = _short(query.flatten(0, 1), key, value, mask).view(rows, heads, count, -1)
    else:
        key, value = (part.view(rows, length, heads, -1).transpose(1, 2) for part in key_value.chunk(2, dim=-1))
        mixed = functional.scaled_dot_product_attention(query, key, value, None if mask is None else mask[:, None])
    return mixed.transpose(1, 2).reshape(rows, count, width)


def attend_packed(packed: Tensor, heads: int, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Self-attention of a packed projection [B, T, 3 · E], queries before keys before values → [B, T, E].

    `mask`: [T, T] or [B · H, T, T] float, added to the scores.
    """
    if is_short(packed) and not dropout:
        return _packed_short(packed, heads, mask)
    return _packed_fused(packed, heads, mask, dropout)


def is_short(projected: Tensor) -> bool:
    """Whether the tokens of [B, T, …] go the way for short sequences."""
    return projected.shape[1] <= SHORT and projected.device.type == "cpu" and projected.dtype == torch.float32


def _packed_short(packed: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """torch's attention of a short packed projection [B, T, 3 · E] → [B, T, E]."""
    rows, length, thrice = packed.shape
    inner = thrice // 3 // heads
    parts = packed.view(rows, length, 3, heads, inner).permute(2, 0, 3, 1, 4)
    query, key, value = parts.reshape(3, rows * heads, length, inner).unbind(0)
    mixed = _short(query, key, value, mask)  # [B · H, T, E / H]
    return mixed.view(rows, heads, length, inner).transpose(1, 2).reshape(rows, length, heads * inner)


def _packed_fused(packed: Tensor, heads: int, mask: Tensor | None, dropout: float) -> Tensor:
    """torch's attention of a packed projection [B, T, 3 · E] → [B, T, E]."""
    rows, length, thrice = packed.shape
    if mask is not None and mask.ndim == 3:
        mask = mask.reshape(rows, heads, length, length)
    query, key, value = (part.view(rows, length, heads, -1).transpose(1, 2) for part in packed.chunk(3, dim=-1))
    mixed = functional.scaled_dot_product_attention(query, key, value, mask, dropout)  # [B, H, T, E / H]
    return mixed.transpose(1, 2).reshape(rows, length, thrice // 3)


def _short(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention [B · H, M, d] of queries [B · H, M, d] to [B · H, T, d] in batched products; the scores are transposed.

    `mask`: [M, T] or [B · H, M, T] float.
    """
    scale = query.shape[-1] ** -0.5
    if mask is None:
        scores = torch.bmm(key * scale, query.transpose(1, 2))  # [B · H, T, M]
    else:
        # Finite, for a softmax over −∞ alone is not a number; a query that may look at nothing gets the mean of values.
        mask = mask.clamp_min(torch.finfo(mask.dtype).min / 2)
        scores = torch.baddbmm(mask.transpose(-2, -1), key, query.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(1).transpose(1, 2), value)
