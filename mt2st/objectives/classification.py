"""Classification: one class an item, from the item's embedding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class ClassificationObjective(nn.Module):
    """Cross-entropy of a linear head on `features.embedding` against the batch's class numbers.

        loss = ClassificationObjective(width=48, classes=10)(encoder.features({"pixels": pixels, "label": label}))

    Args:
        width: D of the embedding.
        classes: number of classes.
        label: name of the class numbers [B] int64 in the batch.
        embedding: name of the feature to classify, [B, D].
        name: task name in ledger and logs.
    """

    labelled = True

    def __init__(
        self, width: int, classes: int, *, label: str = "label", embedding: str = "embedding", name: str = "class"
    ) -> None:
        super().__init__()
        self.name, self.label, self.embedding = name, label, embedding
        self.head = nn.Linear(width, classes)

    def logits(self, features: Any) -> Tensor:
        """Class logits [B, classes]."""
        scores: Tensor = self.head(getattr(features, self.embedding))
        return scores

    def forward(self, features: Any) -> Tensor:
        return functional.cross_entropy(self.logits(features).float(), features[self.label])
