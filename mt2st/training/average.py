"""Weight averaging: an exponential moving average of the weights is what is validated, tested and kept.

    average = AverageWeights(model, decay=0.99)
    average.update()                  # after each optimiser step: a ← a + (1 − d) · (w − a)
    with average.shown():             # the model has the averaged weights inside
        validate(model)

Training itself never sees the average, so it takes the same steps. The decay starts small, d = min(decay,
(1 + n) / (10 + n)) after n updates, so that the first weights are soon forgotten (as TensorFlow's
ExponentialMovingAverage does with `num_updates`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

AVERAGE_FLOPS = 3  # for each weight: a difference, a product, a sum


class AverageWeights:
    """The moving average of a model's parameters and floating-point buffers; other buffers are the newest.

    Args:
        model: the model that is trained.
        decay: d in (0, 1); nearer to 1 = a longer memory, of about 1 / (1 − d) steps.

    Attributes:
        tensors: name → average.
        updates: how many steps it has seen.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.updates = 0
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in self._named()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights as they are after another optimiser step."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in self._named():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor.detach(), 1 - decay)
            else:
                self.tensors[name].copy_(tensor)

    @property
    def flops(self) -> int:
        """FLOPs of one update."""
        return AVERAGE_FLOPS * sum(parameter.numel() for parameter in self._model.parameters())

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the averaged weights inside the block, and its own to the same bits afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self._named()}
        self.adopt()
        try:
            yield
        finally:
            self._give(own)

    def adopt(self) -> None:
        """Give the model the averaged weights for good."""
        self._give(self.tensors)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside `tensors`."""
        return {"updates": self.updates}

    def load(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from what a checkpoint kept."""
        self.updates = state["updates"]
        self.tensors = {name: tensors[name].to(tensor.device) for name, tensor in self._named()}

    @torch.no_grad()
    def _give(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._named():
            tensor.copy_(values[name])

    def _named(self) -> list[tuple[str, Tensor]]:
        return [*self._model.named_parameters(), *self._model.named_buffers()]
