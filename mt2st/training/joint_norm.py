"""Batch normalisation over the joint batch of several processes, on any device.

torch's `SyncBatchNorm` does the same on GPUs only. Without it every process normalises by its own share of the batch,
and N processes train another model than one does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Summed(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class JointBatchNorm(nn.Module):
    """A batch normalisation whose mean and variance are those of all processes' inputs.

    Args:
        norm: the one to take the place of; parameters and buffers stay the very same, under the same names.
    """

    running_mean: Tensor | None
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.training = norm.training

    def forward(self, values: Tensor) -> Tensor:
        """Normalise `values` [B, C, …] by channel."""
        shape = (1, -1, *[1] * (values.ndim - 2))
        if self.training or self.running_mean is None:
            others = [dim for dim in range(values.ndim) if dim != 1]
            count = values.numel() / values.shape[1] * distributed.get_world_size()
            mean = _Summed.apply(values.sum(others)) / count
            variance = _Summed.apply((values - mean.view(shape)).square().sum(others)) / count
            self._remember(mean.detach(), variance.detach(), count)
        else:
            mean, variance = self.running_mean, self.running_var
        normal = (values - mean.view(shape)) * (variance.view(shape) + self.eps).rsqrt()
        return normal if self.weight is None else normal * self.weight.view(shape) + self.bias.view(shape)

    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics, as torch does: the variance without bias."""
        if self.running_mean is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(1.0, count - 1), share)


def join_norms(module: nn.Module) -> None:
    """Put a `JointBatchNorm` in the place of every batch normalisation of torch's own classes inside `module`."""
    for child_name, child in module.named_children():
        if type(child) in _KINDS:
            setattr(module, child_name, JointBatchNorm(child))  # type: ignore[arg-type]
        else:
            join_norms(child)
