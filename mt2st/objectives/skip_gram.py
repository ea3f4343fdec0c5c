"""Skip-gram with negative sampling (word2vec, arXiv 1310.4546), on the words of a batch of texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.errors import Mt2stError


class SkipGramObjective(nn.Module):
    """A word's vector predicts a word near it against words drawn from the noise distribution.

    From each text `centres` words are drawn, and for each one neighbour at a distance up to `window`. Word2vec draws
    its negatives for each pair; here the batch shares `noise_words`, whose mean loss weighs as `negatives` of them: one
    matrix product. Does *not* drop frequent words as word2vec does.

    Args:
        counts: [V] occurrences of each word; 0 = never drawn as noise (padding).
        width: D of word vectors.
        window: largest distance of a neighbour, in words.
        centres: centre words a text.
        negatives: weight of the noise against one neighbour; word2vec's k.
        noise_words: noise words a batch.
        name: task name in ledger and logs.
    """

    noise: Tensor

    def __init__(
        self,
        counts: Tensor,
        width: int,
        *,
        window: int = 4,
        centres: int = 4,
        negatives: int = 5,
        noise_words: int = 32,
        name: str = "skip_gram",
    ) -> None:
        super().__init__()
        if min(window, centres, negatives, noise_words) < 1:
            raise Mt2stError(
                f"window = {window}, centres = {centres}, negatives = {negatives}, noise_words = {noise_words} must "
                "all be ≥ 1"
            )
        self.name = name
        self.window, self.centres, self.negatives, self.noise_words = window, centres, negatives, noise_words
        self.contexts = nn.Embedding(len(counts), width)
        nn.init.zeros_(self.contexts.weight)  # as in word2vec
        self.register_buffer("noise", counts.double().pow(0.75).float(), persistent=False)

    def forward(self, features: Any) -> Tensor:
        tokens = features["tokens"]  # [B, T]
        real = torch.ne(tokens, 0)
        lengths = real.sum(1, keepdim=True)  # words come first, padding last
        shape = (len(tokens), self.centres)
        at = (torch.rand(shape, device=tokens.device) * lengths).long()
        step = torch.randint(1, self.window + 1, shape, device=tokens.device)
        side = torch.randint(0, 2, shape, device=tokens.device) * 2 - 1
        near = at + step * side
        inside = ((near >= 0) & (near < lengths)).flatten().float()
        centre = tokens.gather(1, at).flatten()  # [B · centres]
        context = tokens.gather(1, near.clamp(0, tokens.shape[1] - 1)).flatten()
        noise = torch.multinomial(self.noise, self.noise_words, replacement=True)
        vectors = features.encoder.table(centre)  # [n, D]
        near_score = torch.einsum("nd,nd->n", vectors, self.contexts(context))
        noise_score = vectors @ self.contexts(noise).T  # [n, noise words]
        other = torch.ne(noise[None], context[:, None]).float()  # the neighbour itself is no negative
        away = -(functional.logsigmoid(-noise_score) * other).sum(1) / other.sum(1).clamp_min(1.0)
        losses = -functional.logsigmoid(near_score) + self.negatives * away
        return (losses * inside).sum() / inside.sum().clamp_min(1.0)
