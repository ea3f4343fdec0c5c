"""Parallel streams: on a CPU with several threads, each stream's forward and backward pass has threads of its own.

The streams of a step meet only in the sum of their gradients. Small operators use two threads badly, so two passes with
a thread each are faster than one after the other with both. What is computed is the same but for the order of sums, and
the same bits come out every time:

- Gradients are added in the order of the streams, whichever pass ends first.
- Forward passes may draw random numbers in one stream at most, for torch has one generator for all threads. A first
  forward pass of each active set looks whether that holds; where it does not, passes run one after the other.
- Batch normalisation in training does not use its running statistics, only moves them. Each stream moves its own copy,
  and the copies are then put together as if one stream had followed the other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt2st.batch import Batch
from mt2st.errors import Mt2stError
from mt2st.training.aside import aside
from mt2st.training.interface import ALL_FROZEN
from mt2st.training.joint_model import JointModel

_RECOMPUTES = ("gradient_checkpointing", "grad_checkpointing")  # as transformers and open_clip call it
_helpers: ThreadPoolExecutor | None = None  # of this process; made when first needed


def _without_helpers() -> None:
    global _helpers
    _helpers = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_without_helpers)  # threads stay behind in the parent


class ParallelStreams:
    """Forward and backward passes of one process, a stream a thread.

    Args:
        model: on a CPU, in fp32, not compiled. Its batch normalisations get a class that can keep statistics apart.
    """

    def __init__(self, model: JointModel) -> None:
        self._model = model
        self._norms = [each for each in model.modules() if _tracks(each)]
        for norm in self._norms:
            norm.__class__ = _APART[type(norm)]
        # active tasks and what is frozen for a time → whether their streams may run side by side
        self._safe: dict[tuple[str, ...], bool] = {}

    def serves(self, batches: Mapping[str, Batch], weights: Mapping[str, float], held: Sequence[str] = ()) -> bool:
        """Whether a step of these tasks has several streams that may run so, and there are threads for them.

        Args:
            held: what is frozen for a time now; a frozen part drops nothing out.
        """
        if len(batches) < 2 or torch.get_num_threads() < 2:
            return False
        active = (*weights, "|", *held)
        if active not in self._safe:
            self._safe[active] = self._looked_at(batches, weights)
        return self._safe[active]

    def gradients(self, batches: Mapping[str, Batch], weights: Mapping[str, float], scale: float) -> dict[str, Tensor]:
        """Add the gradients of `scale` times the weighted sum of losses; the unweighted losses, detached.

        Raises:
            Mt2stError: nothing that is trained decides a loss.
        """
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        threads = torch.get_num_threads()
        share = max(1, threads // len(batches))
        moved: list[_Moved] = [{norm: _Statistics(norm) for norm in self._norms} for _ in batches]

        def passes(stream: str, statistics: _Moved) -> tuple[dict[str, Tensor], tuple[Tensor | None, ...] | None]:
            torch.set_num_threads(share)  # it counts for this thread
            _apart.statistics = statistics
            try:
                own = self._tasks(stream, weights)
                losses = self._model.forward({stream: batches[stream]}, own)
                total = sum((own[name] * scale * loss for name, loss in losses.items()), start=torch.zeros(()))
                found = torch.autograd.grad(total, trained, allow_unused=True) if total.requires_grad else None
            finally:
                _apart.statistics = None
            return {name: loss.detach() for name, loss in losses.items()}, found

        try:
            results = _at_once([partial(passes, *each) for each in zip(batches, moved, strict=True)])
        finally:
            torch.set_num_threads(threads)
        for norm in self._norms:
            _follow_each_other(norm, [each[norm] for each in moved])
        gradients = [found for _, found in results if found is not None]
        if not gradients:
            raise Mt2stError(ALL_FROZEN)
        for found in gradients:
            _add(trained, found)
        losses = {name: loss for found, _ in results for name, loss in found.items()}
        return {name: losses[name] for name in weights}

    def _tasks(self, stream: str, weights: Mapping[str, float]) -> dict[str, float]:
        tasks = self._model.mixture.tasks
        return {name: weight for name, weight in weights.items() if tasks[name].stream == stream}

    def _looked_at(self, batches: Mapping[str, Batch], weights: Mapping[str, float]) -> bool:
        """Whether at most one stream draws random numbers, and none changes a buffer but running statistics.

        Nor does any compute activations again in its backward pass: that turns the one generator back for a while.
        """
        if any(getattr(each, name, False) is True for each in self._model.modules() for name in _RECOMPUTES):
            return False
        known = {id(buffer) for norm in self._norms for buffer in norm.buffers()}
        others = [buffer for buffer in self._model.buffers() if id(buffer) not in known]
        before, random = [buffer.clone() for buffer in others], torch.default_generator.get_state()
        drawing, last = 0, random
        with aside(self._model), torch.no_grad():
            for stream in batches:
                self._model.forward({stream: batches[stream]}, self._tasks(stream, weights))
                state = torch.default_generator.get_state()
                drawing, last = drawing + (not torch.equal(last, state)), state
            changed = any(not torch.equal(buffer, value) for buffer, value in zip(others, before, strict=True))
        torch.default_generator.set_state(random)
        return drawing < 2 and not changed


def _at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """What each of `works` returns, in their order; the first one in this thread. The first error ends it."""
    global _helpers
    if _helpers is None:
        _helpers = ThreadPoolExecutor(thread_name_prefix="mt2st-stream")
    others = [_helpers.submit(work) for work in works[1:]]
    try:
        first = works[0]()
    finally:
        for other in others:  # none goes on behind the back of whoever handles an error
            other.exception()
    return [first, *(other.result() for other in others)]


# -- batch normalisation -----------------------------------------------------------------------------------------------


class _Statistics:
    """A stream's copy of running statistics, and how many times it was moved."""

    def __init__(self, norm: Any) -> None:
        self.mean, self.variance, self.times = norm.running_mean.clone(), norm.running_var.clone(), 0


_Moved = dict[nn.Module, _Statistics]


class _Apart(threading.local):
    statistics: _Moved | None = None


_apart = _Apart()


class _ApartMixin:
    """A batch normalisation that moves its thread's statistics, where the thread has some."""

    def forward(self, inputs: Tensor) -> Tensor:
        norm: Any = self
        own = (_apart.statistics or {}).get(norm) if norm.training else None
        if own is None:
            found: Tensor = super().forward(inputs)  # type: ignore[misc]
            return found
        own.times += 1
        return F.batch_norm(inputs, own.mean, own.variance, norm.weight, norm.bias, True, norm.momentum, norm.eps)

    def _get_name(self) -> str:
        return type(self).__bases__[1].__name__  # a model's printed form, which hashes cover, stays what it was


class _Apart1d(_ApartMixin, nn.BatchNorm1d):
    pass


class _Apart2d(_ApartMixin, nn.BatchNorm2d):
    pass


class _Apart3d(_ApartMixin, nn.BatchNorm3d):
    pass


_APART: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Apart1d,
    nn.BatchNorm2d: _Apart2d,
    nn.BatchNorm3d: _Apart3d,
    **{kind: kind for kind in (_Apart1d, _Apart2d, _Apart3d)},  # of an earlier training
}


def _tracks(module: nn.Module) -> bool:
    return type(module) in _APART and module.running_mean is not None and module.momentum is not None


def _add(parameters: list[nn.Parameter], gradients: tuple[Tensor | None, ...]) -> None:
    """Add gradients to those that are there; each parameter ends with memory of its own.

    Autograd may give one tensor for two parameters, such as two that are added, or an expanded one. Clipping changes
    gradients in place, so both are copied.
    """
    taken: set[int] = set()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            parameter.grad = parameter.grad + gradient
            continue
        gradient = gradient.contiguous()
        parameter.grad = gradient.clone() if gradient.data_ptr() in taken else gradient
        taken.add(gradient.data_ptr())


def _follow_each_other(norm: Any, streams: list[_Statistics]) -> None:
    """Move the running statistics as if one stream had followed the other.

    A move is r ← (1 − m)·r + m·s. From r₀ a stream with k moves comes to (1 − m)ᵏ·r₀ + its part, so its part on top of
    another start r is what it came to, plus (1 − m)ᵏ·(r − r₀).
    """
    running = [norm.running_mean, norm.running_var]
    moved = [stream for stream in streams if stream.times]
    now = [moved[0].mean, moved[0].variance] if moved else running
    for stream in moved[1:]:
        kept = (1 - norm.momentum) ** stream.times
        now = [
            own.add_(last.sub_(start), alpha=kept)
            for own, last, start in zip((stream.mean, stream.variance), now, running, strict=True)
        ]
    if moved:
        for old, new in zip(running, now, strict=True):
            old.copy_(new)
        norm.num_batches_tracked += sum(stream.times for stream in moved)
