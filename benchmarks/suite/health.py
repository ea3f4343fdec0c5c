"""Signs that a run learned nothing, with the likely cure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CURE = "likely cure: a lower learning rate (--encoder.learning-rate for pretrained towers)"


def signs_of_failure(metrics: Sequence[Mapping[str, Any]], primary: str, items: Mapping[str, np.ndarray]) -> list[str]:
    """What a reader must know of a run that went wrong without an error; empty for a healthy run.

    Args:
        metrics: the lines of metrics.jsonl, in order.
        primary: the primary task's name.
        items: per-item arrays of the test, of which "prediction" [N] holds class numbers and "score" [N] in [0, 1].
    """
    found = []
    prediction, score = items.get("prediction"), items.get("score")
    if prediction is not None and score is not None and len(np.unique(prediction)) == 1 and score.min() < 1:
        found.append(f"all {len(prediction)} test predictions are one class; {CURE}")
    name = f"loss/{primary}"
    losses = [(line["step"], line[name]) for line in metrics if line["event"] == "train" and name in line]
    if len(losses) > 1 and losses[-1][1] > losses[0][1]:
        (first, start), (last, end) = losses[0], losses[-1]
        found.append(f"the loss of {primary} rose from {start:.4g} at step {first} to {end:.4g} at step {last}; {CURE}")
    return found
