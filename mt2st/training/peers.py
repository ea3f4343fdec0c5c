"""What the processes of one training tell each other: sums, means and wishes. With one process all is its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class Peers:
    """The processes that train together. All of them must call the same method at the same step."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self._accelerator.num_processes == 1

    def total(self, number: int) -> int:
        """The sum of `number`."""
        if self.alone:
            return number
        return int(self._accelerator.reduce(torch.tensor(number, device=self._accelerator.device), "sum"))

    def any_of(self, *wishes: bool) -> list[bool]:
        """Each wish, if any process has it."""
        if self.alone:
            return list(wishes)
        counts = torch.tensor([float(wish) for wish in wishes], device=self._accelerator.device)
        return [count > 0 for count in self._accelerator.reduce(counts, "sum").tolist()]

    def means(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Each loss, of the joint batch: a process knows that of its own share."""
        shown = {name: loss.detach().float() for name, loss in losses.items()}
        if not self.alone:
            shown = {name: self._accelerator.reduce(loss, "mean") for name, loss in shown.items()}
        return {name: float(loss) for name, loss in shown.items()}

    def joint(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each value, summed in the order of ranks: the same bits in every process."""
        found = self.states(values)
        return {name: sum(each[name] for each in found) / len(found) for name in values}

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of `tensor`."""
        return tensor if self.alone else self._accelerator.reduce(tensor, "mean")

    def states(self, state: Mapping[str, Any]) -> list[Any]:
        """The plain values of all processes, by rank."""
        if self.alone:
            return [state]
        found: list[Any] = [None] * self._accelerator.num_processes
        torch.distributed.all_gather_object(found, dict(state))
        return found
