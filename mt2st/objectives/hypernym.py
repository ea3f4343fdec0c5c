"""Hypernym pairs: a word is nearer to the word above it than to one drawn at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.errors import check_range


class HypernymObjective(nn.Module):
    """Margin ranking: relu(margin − cos(word, hypernym) + cos(word, another row's hypernym)).

    The mean is over rows that have a hypernym. The other row is drawn by turning the batch by a random number of rows.
    Where it has the same hypernym, the row is left out.

    Args:
        margin: in [0, 2]; 0 = order alone counts.
        name: task name in ledger and logs.
    """

    def __init__(self, *, margin: float = 0.5, name: str = "hypernym") -> None:
        super().__init__()
        check_range("margin", margin, 0.0, 2.0, "it is a difference of cosines, for example 0.5")
        self.name, self.margin = name, margin

    def forward(self, features: Any) -> Tensor:
        group = features["hypernym_group"]  # [B], -1 where there is none
        words = functional.normalize(features.lemma_embedding.float(), dim=-1)  # [B, D]
        above = functional.normalize(features.hypernym_embedding.float(), dim=-1)
        turn = int(torch.randint(1, max(2, len(group)), ()))
        known = torch.ne(features["lemma_tokens"], 0).any(1) & torch.ne(features["hypernym_tokens"], 0).any(1)
        counted = (known & known.roll(turn) & (group != group.roll(turn))).float()
        right = torch.einsum("nd,nd->n", words, above)
        wrong = torch.einsum("nd,nd->n", words, above.roll(turn, 0))
        losses = functional.relu(self.margin - right + wrong)
        return (losses * counted).sum() / counted.sum().clamp_min(1.0)
