"""open_clip's text tower, with the last block run for those tokens alone that somebody asks for.

A contrastive loss reads one token of a text, masked language modelling the hidden ones. Each attends to all tokens, so
the last block needs the keys and values of all, but queries, output projection and MLP of those that are read. What
comes out is what the tower itself gives, to rounding. With gradient checkpointing the blocks before the last one are
computed again in the backward pass.

Shapes: B texts of T tokens of width D, M of them asked for, H heads; embeddings of width E.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mt2st.batch import pick
from mt2st.encoders.attention import PackedAttention, attend, attend_packed

_POOLS = ("first", "last", "argmax", "eos")


def serves(text: Any) -> bool:
    """Whether the tower is of the form that is followed here; LoRA, for one, changes it."""
    from open_clip.transformer import ResidualAttentionBlock, TextTransformer, Transformer

    if type(text) is not TextTransformer or text.cls_emb is not None or text.pool_type not in _POOLS:
        return False
    inner = text.transformer
    if type(inner) is not Transformer or not inner.batch_first:
        return False
    last = inner.resblocks[-1]
    if type(last) is not ResidualAttentionBlock or hasattr(last, "ln_1_kv"):
        return False
    return type(last.attn) is PackedAttention and not last.attn.dropout


class TextOutput:
    """What the tower makes of texts: a `TowerOutput` whose members are computed when they are read.

    Args:
        text: a tower that `serves`.
        ids: [B, T] int64.
        given: leading tokens of T whose states are the output; the others were put behind for the tower alone.
    """

    def __init__(self, text: Any, ids: Tensor, given: int) -> None:
        self._text, self._ids, self._given = text, ids, given
        length, blocks = ids.shape[1], text.transformer.resblocks
        kind = text.transformer.get_cast_dtype()
        hidden = text.token_embedding(ids).to(kind) + text.positional_embedding[:length].to(kind)
        mask = None if text.attn_mask is None else text.attn_mask[:length, :length].to(kind)[None]  # [1, T, T]
        if text.use_pad_mask:
            padding = torch.zeros(ids.shape, dtype=kind, device=ids.device)
            padding = padding.masked_fill_(ids == text.pad_id, float("-inf"))[:, None]  # [B, 1, T]
            mask = padding if mask is None else mask + padding
        if len(blocks) > 1:
            whole = None
            if mask is not None:
                whole = mask.expand(len(ids), length, length).repeat_interleave(blocks[0].attn.num_heads, 0)
            for block in blocks[:-1]:
                if text.transformer.grad_checkpointing:
                    hidden = checkpoint(block, hidden, None, None, whole, use_reentrant=False)
                else:
                    hidden = block(hidden, attn_mask=whole)
        self._hidden, self._mask, self._block = hidden, mask, blocks[-1]

    def __iter__(self) -> Iterator[Tensor]:
        yield from (self.tokens, self.embedding)

    @cached_property
    def tokens(self) -> Tensor:
        """[B, T, D]."""
        return self._all[:, : self._given]

    @cached_property
    def embedding(self) -> Tensor:
        """[B, E], not normalised."""
        ids, pool = self._ids, self._text.pool_type
        if pool == "argmax":
            place = ids.argmax(1)
        elif pool == "eos":
            place = (ids == self._text.eos_id).int().argmax(1)
        else:
            place = ids.new_full((len(ids),), 0 if pool == "first" else ids.shape[1] - 1)
        pooled = self.at(place[:, None])[:, 0]
        projection = self._text.text_projection
        if projection is None:
            return pooled
        embedding: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return embedding

    def at(self, positions: Tensor) -> Tensor:
        """The states [B, M, D] at `positions` [B, M] int64, of one text each row."""
        if "_all" in self.__dict__:
            return pick(self._all, positions)
        return self._some(positions)

    @cached_property
    def _all(self) -> Tensor:
        attention, mask = self._block.attn, self._mask
        packed = functional.linear(self._normed, attention.in_proj_weight, attention.in_proj_bias)
        if mask is not None:
            rows, length = self._ids.shape
            mask = mask[:, None].expand(rows, attention.num_heads, length, length).flatten(0, 1).to(packed.dtype)
        return self._behind(self._hidden, attend_packed(packed, attention.num_heads, mask))

    def _some(self, positions: Tensor) -> Tensor:
        own, mask, heads = pick(self._hidden, positions), self._mask, self._block.attn.num_heads
        if mask is not None and mask.shape[1] > 1:
            mask = pick(mask.expand(len(positions), -1, -1), positions)
        query = functional.linear(pick(self._normed, positions), *self._projections[0])
        return self._behind(own, attend(query, self._key_value, heads, mask))

    def _behind(self, own: Tensor, mixed: Tensor) -> Tensor:
        """What follows the attention in the last block, and the norm behind it."""
        block = self._block
        own = own + block.ls_1(block.attn.out_proj(mixed))
        own = own + block.ls_2(block.mlp(block.ln_2(own)))
        states: Tensor = self._text.ln_final(own)
        return states

    @cached_property
    def _normed(self) -> Tensor:
        normed: Tensor = self._block.ln_1(self._hidden)
        return normed

    @cached_property
    def _projections(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of the query, and of key and value."""
        attention, width = self._block.attn, self._hidden.shape[-1]
        sizes = [width, 2 * width]
        bias = attention.in_proj_bias
        biases = (None, None) if bias is None else bias.split(sizes)
        return list(zip(attention.in_proj_weight.split(sizes), biases, strict=True))

    @cached_property
    def _key_value(self) -> Tensor:
        return functional.linear(self._normed, *self._projections[1])  # [B, T, 2 · D]
