"""A balancer in the training loop: it makes the gradients of a step in place of the weighted sum.

Parameters that two or more active tasks reach are *shared*: a method that weighs gradients combines their gradients. A
parameter that one task reaches, such as its head, gets that task's gradient, as in LibMTL and in TorchJD's
`mtl_backward`. Each task has a backward pass of its own over all that it reaches, so batches may differ by task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mt2st.balancing import Balancer, GradientBalancer
from mt2st.errors import Mt2stError
from mt2st.flops import uncounted
from mt2st.training.config import TrainConfig
from mt2st.training.interface import ALL_FROZEN


def check_balancer(balancer: Balancer, config: TrainConfig, *, listening: bool = False) -> None:
    """Raise unless the balancer can work under this configuration.

    Raises:
        Mt2stError: several micro-batches a step, a budget in FLOPs, schedules that listen; for a method that weighs
            gradients also fp16 or a compiled model.
    """
    name = type(balancer).__name__
    if config.accumulation > 1:
        raise Mt2stError(f"{name} takes one batch a step; use accumulation = 1, not {config.accumulation}")
    if config.total_flops or listening:
        raise Mt2stError(f"{name} needs a fixed number of steps and schedules that do not listen; use total_steps")
    if isinstance(balancer, GradientBalancer) and config.precision == "fp16":
        raise Mt2stError(f"{name} compares gradients, which fp16 scales and overflows; use precision = bf16 or no")
    if isinstance(balancer, GradientBalancer) and config.compile:
        raise Mt2stError(f"{name} runs several backward passes, which a compiled model cannot; use compile = False")


class Balancing:
    """Makes the gradients of steps with two or more active tasks.

    Args:
        balancer: the method.
        parameters: all parameters of encoder and objectives.
        backward: runs the backward pass of a total loss, as the loop does it.
        mean: the mean of a tensor over all processes.

    Attributes:
        shown: task → its factor or weight in the last step.
    """

    def __init__(
        self,
        balancer: Balancer,
        parameters: Sequence[nn.Parameter],
        *,
        backward: Callable[[Tensor], Any] = Tensor.backward,
        mean: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        self.balancer = balancer
        self._trained = self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._backward, self._mean = backward, mean
        self._weights: Mapping[str, float] = {}
        self._before: dict[str, Tensor] = {}
        self.shown: dict[str, Tensor] = {}

    @property
    def weighs_gradients(self) -> bool:
        """Whether processes exchange gradients here, so that nobody else must."""
        return isinstance(self.balancer, GradientBalancer)

    @property
    def looks_again(self) -> bool:
        """Whether `learn` runs another forward pass."""
        return not isinstance(self.balancer, GradientBalancer) and self.balancer.looks_again

    def backward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float], seed: int) -> None:
        """Give every parameter that the losses reach its gradient.

        Args:
            losses: unweighted losses of the active tasks, primary first.
            weights: their schedules' weights.
            seed: of what the method draws, the same in all processes.
        """
        if not any(loss.requires_grad for loss in losses.values()):
            raise Mt2stError(ALL_FROZEN)
        self._weights = weights
        scheduled = {name: weights[name] * loss for name, loss in losses.items()}
        if isinstance(self.balancer, GradientBalancer):
            self._combine(self.balancer, scheduled, seed)
            return
        self._before = self._joint(losses)
        self.shown = self.balancer.factors(self._before)
        self._backward(torch.stack([self.shown[name] * loss for name, loss in scheduled.items()]).sum())

    def learn(self, learning_rate: float, losses_again: Callable[[], Mapping[str, Tensor]]) -> None:
        """Tell the method how the step went; called after the optimiser's update.

        Args:
            learning_rate: the optimiser's.
            losses_again: computes the losses of the same batch with the same random numbers; called if needed.
        """
        if isinstance(self.balancer, GradientBalancer):
            return
        after = None
        if self.balancer.looks_again:
            with torch.no_grad():
                after = self._joint(losses_again())
        self.balancer.learn(self._before, after, learning_rate)

    def _joint(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scheduled losses of the joint batch, on the CPU."""
        values = self._mean(torch.stack([self._weights[name] * loss.detach().float() for name, loss in losses.items()]))
        return dict(zip(losses, values.cpu(), strict=True))

    def _combine(self, balancer: GradientBalancer, scheduled: Mapping[str, Tensor], seed: int) -> None:
        self._parameters = [each for each in self._trained if each.requires_grad]  # some may be frozen for a time
        last = [name for name, loss in scheduled.items() if loss.requires_grad][-1]
        rows: dict[str, Sequence[Tensor | None]] = dict.fromkeys(scheduled, (None,) * len(self._parameters))
        for name, loss in scheduled.items():
            if loss.requires_grad:
                rows[name] = torch.autograd.grad(loss, self._parameters, retain_graph=name != last, allow_unused=True)
        reached = [[row[place] for row in rows.values()] for place in range(len(self._parameters))]
        shared = [place for place, found in enumerate(reached) if sum(each is not None for each in found) > 1]
        if shared:
            # [m, n]: a row a task, 0 where it does not reach a parameter
            jacobian = torch.stack([self._flat([row[place] for place in shared], shared) for row in rows.values()])
            jacobian = self._mean(jacobian)
            weights = self._weights_of(balancer, jacobian @ jacobian.T, list(rows), seed)
            self.shown = dict(zip(rows, weights, strict=True))
            self._give(shared, weights @ jacobian)
        alone = [place for place, found in enumerate(reached) if sum(each is not None for each in found) == 1]
        if alone:
            own = [next(each for each in reached[place] if each is not None) for place in alone]
            self._give(alone, self._mean(self._flat(own, alone)))

    @staticmethod
    def _weights_of(balancer: GradientBalancer, gramian: Tensor, tasks: list[str], seed: int) -> Tensor:
        """The method's weights. Its problem of size m × m is not counted: its steps depend on values, not on shapes."""
        if not bool(torch.isfinite(gramian).all()):  # the loop's own checks will name the loss or the weight
            return torch.ones_like(gramian[0])
        with uncounted():
            return balancer.combine(gramian, tasks, seed).to(gramian)

    def _flat(self, gradients: Sequence[Tensor | None], places: Sequence[int]) -> Tensor:
        """Gradients of the parameters at `places` in one vector [n], zeros for those that are None."""
        vector = torch.cat(
            [
                (torch.zeros_like(self._parameters[place]) if gradient is None else gradient).flatten()
                for gradient, place in zip(gradients, places, strict=True)
            ]
        )
        return vector.to(torch.promote_types(vector.dtype, torch.float32))

    def _give(self, places: Sequence[int], gradient: Tensor) -> None:
        """Hand the vector [n] out to the parameters at `places`."""
        parameters = [self._parameters[place] for place in places]
        parts = gradient.split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
