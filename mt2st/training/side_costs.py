"""What a training computes beside forward and backward passes: the optimiser's operations, and validation.

Neither is in the training FLOPs. The optimiser's operations are elementwise, and no counter of matrix products sees
them. They follow from a formula:

| operation, for a parameter that has a gradient | FLOPs |
|---|---:|
| first moment: m + (1 − β₁) · (g − m) | 3 |
| second moment: β₂ · v + (1 − β₂) · g · g | 4 |
| √v / √(1 − β₂ᵗ) + ε | 3 |
| p − rate · (m / that) | 3 |
| decoupled weight decay: p · (1 − rate · decay), matrices alone | 1 |
| clipping: g · g, its sum, and g · factor | 3 |

1 multiply-add = 2 FLOPs, as everywhere; a root and a division count 1. What is computed once a step (powers of β, the
factor) is left out. Replicas of a model update the same parameters, which counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ADAMW_FLOPS = 13
DECAY_FLOPS = 1
CLIP_FLOPS = 3


def optimiser_flops(groups: Iterable[Mapping[str, Any]], *, clipped: bool) -> int:
    """FLOPs of one AdamW step on these parameter groups, as the table above counts them.

    Args:
        groups: the optimiser's, with "params" and "weight_decay"; parameters without a gradient are not touched.
        clipped: the gradients' norm is limited.
    """
    total = 0
    for group in groups:
        each = ADAMW_FLOPS + DECAY_FLOPS * bool(group["weight_decay"]) + CLIP_FLOPS * clipped
        total += each * sum(parameter.numel() for parameter in group["params"] if parameter.grad is not None)
    return total
