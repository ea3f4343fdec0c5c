"""Early stopping: the weights of the best validation are those that a run ends with.

Training goes on to its last step, and its FLOPs are what was spent; so the learning rate's curve, the budget and the
comparison with other runs stay what they are. Validation alone chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class BestWeights:
    """A copy of a model's parameters and buffers at its best validation so far.

    Args:
        model: the model that is trained.
        metric: id of the validation metric that decides.
        higher_is_better: its direction.

    Attributes:
        step: optimiser steps done at the best validation; 0 = there was none yet.
        tensors: name → the copy.
    """

    def __init__(self, model: nn.Module, metric: str, higher_is_better: bool) -> None:
        self._model, self._metric, self._sign = model, metric, 1.0 if higher_is_better else -1.0
        self.step = 0
        self.value = 0.0
        self.tensors: dict[str, Tensor] = {}

    def is_better(self, metrics: Mapping[str, float]) -> bool:
        """Whether this validation is better than all before; of equal ones the first is kept."""
        return not self.step or self._sign * metrics[self._metric] > self._sign * self.value

    def keep(self, step: int, metrics: Mapping[str, float]) -> None:
        """The model as it is now is the best."""
        self.step, self.value = step, metrics[self._metric]
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._named()}

    def restore(self) -> None:
        """Give the model the weights of the best validation."""
        with torch.no_grad():
            for name, tensor in self._named() if self.step else ():
                tensor.copy_(self.tensors[name])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside `tensors`."""
        return {"step": self.step, "value": self.value}

    def load(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from what a checkpoint kept."""
        self.step, self.value = state["step"], state["value"]
        self.tensors = {name: tensors[name].to(tensor.device) for name, tensor in self._named()} if self.step else {}

    def _named(self) -> list[tuple[str, Tensor]]:
        return [*self._model.named_parameters(), *self._model.named_buffers()]
