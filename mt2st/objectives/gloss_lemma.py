"""Which word does this gloss define? In-batch matching of glosses and lemmas, both ways."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.errors import Mt2stError


class GlossLemmaObjective(nn.Module):
    """InfoNCE between projected glosses and lemmas: a reverse dictionary.

    Source: Hill et al., TACL 2016; here with in-batch negatives. Rows with the same `lemma_group` are positives of each
    other; rows whose lemma has no known token (all padding) are left out.

    Args:
        width: of the gloss's embedding.
        lemma_width: of the lemma's embedding.
        both_ways: also find the gloss of each lemma (matching); False = gloss → lemma only.
        temperature: > 0.
        name: task name in ledger and logs.
    """

    def __init__(
        self,
        width: int,
        lemma_width: int,
        *,
        both_ways: bool = False,
        temperature: float = 0.1,
        name: str = "gloss_lemma",
    ) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise Mt2stError(f"temperature = {temperature!r} must be finite and > 0, for example 0.1")
        self.name, self.both_ways, self.temperature = name, both_ways, temperature
        self.project = nn.Linear(width, lemma_width)

    def forward(self, features: Any) -> Tensor:
        group = features["lemma_group"]  # [B]
        known = torch.ne(features["lemma_tokens"], 0).any(1)
        gloss = functional.normalize(self.project(features.embedding).float(), dim=-1)  # [B, D]
        lemma = functional.normalize(features.lemma_embedding.float(), dim=-1)
        logits = gloss @ lemma.T / self.temperature  # [B glosses, B lemmas]
        positive = (group[:, None] == group[None]).float()
        loss = _row_loss(logits, positive, known)
        return (loss + _row_loss(logits.T, positive, known)) / 2 if self.both_ways else loss


def _row_loss(logits: Tensor, positive: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy against the uniform distribution over a row's positives, mean over known rows.

    Unknown columns are no answer.
    """
    logits = logits.masked_fill(~known[None], -1e4)
    target = positive * known[None]
    target = target / target.sum(1, keepdim=True).clamp_min(1.0)
    losses = -(target * functional.log_softmax(logits, dim=1)).sum(1)
    return (losses * known).sum() / known.sum().clamp_min(1)
