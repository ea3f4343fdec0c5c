"""Are the two items of a pair of one class? Binary, from both embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class SameClassObjective(nn.Module):
    """Binary cross-entropy of "the same class?" on pairs of items.

        objective = SameClassObjective(48)
        loss = objective(encoder.features({"pixels": pixels, "same": same}))    # pixels [2B, 3, S, S], same [B]

    The embeddings u, v of a pair are compared by (|u − v|, u ∘ v), which does not depend on their order; a hidden layer
    and a logit follow. Source: the sentence-pair head of InferSent, arXiv 1705.02364, without its concatenation.

    Args:
        width: D of the embedding.
        hidden: width of the hidden layer.
        name: task name in ledger and logs.
    """

    def __init__(self, width: int, *, hidden: int = 64, name: str = "same_class") -> None:
        super().__init__()
        self.name = name
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits [B] of "the same class" for embeddings [B, D] and [B, D]."""
        first, second = self.norm(first), self.norm(second)
        logits: Tensor = self.head(torch.cat([(first - second).abs(), first * second], dim=-1)).squeeze(-1)
        return logits

    def forward(self, features: Any) -> Tensor:
        """The batch holds the first items of all pairs, then the second ones, and `same` [B], 1 or 0."""
        same = features["same"].float()
        first, second = features.embedding.chunk(2)
        return functional.binary_cross_entropy_with_logits(self.compare(first, second).float(), same)
