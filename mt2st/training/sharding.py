"""Towers that do not fit: optimiser states shared out over processes, activations computed again in the backward pass.

The first is stage 1 of ZeRO (arXiv 1910.02054): each process keeps AdamW's two moments of its share of the parameters,
updates those and sends them to the others. The second is gradient checkpointing (arXiv 1604.06174), where the towers
offer it. Neither changes a bit of what is learned; the second costs another forward pass, which the ledger counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def adamw(
    groups: list[dict[str, Any]], learning_rate: float, device: torch.device, *, sharded: bool
) -> torch.optim.Optimizer:
    """AdamW, fused where the device has it.

    Sharded, each process holds the states of the parameters that it updates; that needs a process group.
    """
    fused = device.type in ("cpu", "cuda")
    if sharded:
        from torch.distributed.optim import ZeroRedundancyOptimizer  # seconds to load, for the few who share states

        return ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.AdamW, lr=learning_rate, fused=fused)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused)


def gather_states(optimizer: torch.optim.Optimizer) -> None:
    """Bring the states of a sharded optimiser to the first process, for a checkpoint; all processes call it."""
    consolidate = getattr(optimizer, "consolidate_state_dict", None)  # a sharded one has it
    if consolidate is not None:
        consolidate(to=0)


def recompute_activations(module: nn.Module) -> int:
    """Turn on gradient checkpointing in every part that offers it, as open_clip or transformers do; how many did."""
    found = 0
    for part in module.modules():
        offered: Any = part
        if hasattr(part, "set_grad_checkpointing"):
            offered.set_grad_checkpointing(True)
        elif getattr(part, "supports_gradient_checkpointing", False):
            offered.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            continue
        found += 1
    return found
