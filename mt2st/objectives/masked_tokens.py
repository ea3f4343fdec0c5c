"""Masked language modelling of a text by itself (BERT, arXiv 1810.04805)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mt2st.batch import pick
from mt2st.errors import check_range
from mt2st.objectives.masked_lm import masked_loss, outside_frame, vocabulary_head, vocabulary_logits


class MaskedTokenObjective(nn.Module):
    """Predict masked tokens from the others.

    As in `masked_lm`, the vocabulary head runs on masked positions only, their number is a constant of the batch's
    shape, and chosen tokens are always replaced by the mask token.

    Args:
        width: D of tokens.
        vocabulary_size: V.
        mask_id: id of the mask token.
        rate: share of a text's tokens to mask, in (0, 1]; BERT's is 0.15.
        frame_ids: ids that are never masked, besides padding.
        name: task name in ledger and logs.
        table: a pretrained encoder's token embeddings [V, D], to tie the head to; None = the head has its own matrix.
    """

    def __init__(
        self,
        width: int,
        vocabulary_size: int,
        mask_id: int,
        *,
        rate: float = 0.15,
        frame_ids: tuple[int, ...] = (),
        name: str = "masked_lm",
        table: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_range("rate", rate, 1e-6, 1.0, "it is the share of tokens that are masked, for example 0.15")
        self.name, self.rate, self.mask_id, self.frame_ids = name, rate, mask_id, frame_ids
        self.head = vocabulary_head(width, vocabulary_size, table)

    def forward(self, features: Any) -> Tensor:
        encoder, tokens = features.encoder, features["tokens"]
        maskable = outside_frame(tokens, encoder.real(tokens), self.frame_ids)

        def logits(hidden: Tensor) -> Tensor:
            return vocabulary_logits(self.head, hidden, encoder)

        def encode(masked: Tensor, positions: Tensor) -> Tensor:
            return pick(encoder.encode(masked), positions)

        return masked_loss(tokens, maskable, encode, logits, mask_id=self.mask_id, rate=self.rate)
