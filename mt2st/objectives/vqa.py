"""Visual question answering as classification over an answer vocabulary with soft targets."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class AnswerObjective(nn.Module):
    """Soft cross-entropy between the answer head and the annotators' answers.

    Targets are the share of annotators behind each answer (rows sum to 1); a row of zeros, a question none of whose
    answers is in the vocabulary, teaches nothing and does not count in the mean.

    Args:
        width: D of the encoder's joint embedding.
        answers: A, the size of the answer vocabulary.
        name: task name in ledger and logs.
    """

    labelled = True

    def __init__(self, width: int, answers: int, *, name: str = "vqa") -> None:
        super().__init__()
        self.name = name
        self.head = nn.Linear(width, answers)

    def logits(self, features: Any) -> Tensor:
        """Answer logits [B questions, A]."""
        scores: Tensor = self.head(features.question_joint)
        return scores

    def forward(self, features: Any) -> Tensor:
        targets = features["answer_targets"]  # [B, A]
        return soft_cross_entropy(self.logits(features), targets)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−Σ targets · log softmax(logits), averaged over the rows whose targets are not all zero; 0 if there is none.

    Args:
        logits: [B, A]. targets: [B, A] in [0, 1].
    """
    losses = -(targets * functional.log_softmax(logits.float(), dim=-1)).sum(-1)  # [B]
    answered = (targets.sum(-1) > 0).to(losses.dtype)
    return (losses * answered).sum() / answered.sum().clamp_min(1.0)
