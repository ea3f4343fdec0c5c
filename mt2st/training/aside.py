"""Training that is thrown away: model, optimiser and loss scale are what they were when the block ends."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def aside(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, scaler: Any = None) -> Iterator[None]:
    """Parameters, buffers, and the states of `optimizer` and `scaler` are put back to the same bits afterwards."""
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    states = [copy.deepcopy(each.state_dict()) if each is not None else None for each in (optimizer, scaler)]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        for each, state in zip((optimizer, scaler), states, strict=True):
            if each is not None:
                each.load_state_dict(state)
