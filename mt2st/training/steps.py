"""One optimiser step: weights, batches, losses, gradients, ledger. What it costs, and whether the budget pays for it.

A run ends after `total_steps`, or when the budget `total_flops` does not pay for another step. Progress is the share of
the one or of the other, and decides learning rate and schedules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn

from mt2st.batch import Batch, shape_key
from mt2st.encoders.freezing import Freezes
from mt2st.errors import Mt2stError
from mt2st.flops import FlopCounter, FlopLedger
from mt2st.randomness import step_seed
from mt2st.training.aside import aside
from mt2st.training.average import AverageWeights
from mt2st.training.balanced import Balancing
from mt2st.training.config import TrainConfig, learning_rate_at, learning_rate_of
from mt2st.training.interface import ALL_FROZEN, Stream
from mt2st.training.joint_model import JointModel
from mt2st.training.listening import LISTENING, as_listening
from mt2st.training.parallel_streams import ParallelStreams
from mt2st.training.peers import Peers
from mt2st.training.remembered import Remembered
from mt2st.training.side_costs import optimiser_flops

_PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Steps:
    """The optimiser steps of one training.

    Args:
        model: what is trained, maybe in a distributed wrapper, and `bare` without it.
        optimizer: accelerate's.
        balancing: makes the gradients while two or more tasks are active; None = those of the weighted sum.
        average: takes in the weights after each step; None = they are not averaged.
        remembered: outputs of towers that are frozen for good from a point on; None = they run at every step.
        parallel_streams: makes the gradients of steps whose streams may run side by side; None = one after the other.

    Attributes:
        learning_rate: of the last step, for parameters without a peak of their own.
        optimiser_flops: of the optimiser so far; see `mt2st.training.side_costs`.
        unchecked: (step from 0, task, loss) of every loss since the last look at them.
    """

    def __init__(
        self,
        model: nn.Module,
        bare: JointModel,
        optimizer: Any,
        streams: Mapping[str, Stream],
        config: TrainConfig,
        ledger: FlopLedger,
        accelerator: Accelerator,
        peers: Peers,
        balancing: Balancing | None = None,
        freezes: Freezes | None = None,
        average: AverageWeights | None = None,
        parallel_streams: ParallelStreams | None = None,
        remembered: Remembered | None = None,
    ) -> None:
        self._average, self._parallel = average, parallel_streams
        self._model, self._bare, self._optimizer, self._streams = model, bare, optimizer, streams
        self._config, self._ledger, self._accelerator, self._peers = config, ledger, accelerator, peers
        self._mixture, self._balancing, self._freezes = bare.mixture, balancing, freezes or Freezes()
        self._remembered = remembered
        # Without a loss scaler accelerate's wrappers only look around, for installed packages among others, which takes
        # more than a per cent of a small step.
        self._plain = accelerator.scaler is None and accelerator.distributed_type in _PLAIN
        self._parameters = list(model.parameters())  # gathered once: walking all modules each step takes time
        self._ahead: dict[tuple[str, int], Batch] = {}  # batches that were made to know the next step's cost
        self.learning_rate = 0.0
        self.optimiser_flops = 0
        # active tasks and what is frozen for a time → FLOPs of the optimiser's step
        self._optimiser_costs: dict[tuple[str, ...], int] = {}
        self.unchecked: list[tuple[int, str, Tensor]] = []

    def kind(self, batches: Mapping[str, Batch], weights: Mapping[str, float]) -> str:
        """What determines a step's FLOPs: the active set, the shapes of its batches, and what is frozen for a time."""
        shapes = ";".join(
            f"{stream}:" + ",".join(f"{name}{list(shape)}" for name, shape in shape_key(batches[stream]))
            for stream in self._mixture.streams(weights)
        )
        return "|".join(("+".join(weights), shapes, *self._freezes.held))

    def progress(self, step: int) -> float:
        """Share of the training that is done after `step` steps: of the steps, or of the budget."""
        if self._config.total_flops:
            return self._peers.total(self._ledger.total) / self._config.total_flops
        return step / self._config.total_steps

    def ended(self, step: int) -> bool:
        """Whether all steps are done after `step` of them, or the budget does not pay for another one.

        Raises:
            Mt2stError: the budget does not pay for one step.
        """
        budget = self._config.total_flops
        if not budget:
            return step >= self._config.total_steps
        progress = self.progress(step)
        cost = self.cost(step, self._weights(step, progress)) if progress < 1 else budget
        if not step and cost > budget:
            raise Mt2stError(f"total_flops = {budget} is less than one step costs ({cost}); raise it")
        return self._peers.total(self._ledger.total) + cost > budget

    def train(self, step: int) -> dict[str, Tensor]:
        """One optimiser step, `step` counted from 0; returns the unweighted losses of its last micro-batch."""
        budget, start = self._config.total_flops, self.progress(step)
        weights = self._weights(step, start)
        end = start + self.cost(step, weights) / budget if budget else 1.0
        self.learning_rate = self._rate(step, start, end)
        losses = self._update(step, weights, start, end)
        self._ahead.clear()
        return losses

    @contextmanager
    def fork(self, step: int, without: Sequence[str], length: float) -> Iterator[int]:
        """A branch that trains `length` of progress without some tasks, after `step` steps; enters with its steps."""
        config, start = self._config, self.progress(step)
        if config.total_flops:
            steps = length * config.total_flops / self.cost(step, self._weights(step, start))
        else:
            steps = length * config.total_steps
        count = max(1, round(steps))
        with aside(self._bare, self._optimizer.optimizer, self._accelerator.scaler):
            for offset in range(count):
                at, then = (start + length * part / count for part in (offset, offset + 1))
                weights = self._weights(step + offset, at)
                weights = {name: weight for name, weight in weights.items() if name not in without}
                self._update(step + offset, weights, at, then, forked=True)
            yield count

    def cost(self, step: int, weights: Mapping[str, float]) -> int:
        """Training FLOPs of a step with these active tasks, of all processes; what is not known yet is measured."""
        own, streams = 0, self._mixture.streams(weights)
        self._freezes.hold(self.progress(step))
        for micro in range(self._config.accumulation):
            index = step * self._config.accumulation + micro
            batches = {stream: self._batch(stream, index) for stream in streams}
            self._ahead |= {(stream, index): batch for stream, batch in batches.items()}
            kind = self.kind(batches, weights)
            if self._peers.any_of(not self._ledger.knows(kind))[0]:  # all measure, for losses may wait for each other
                self._pass_again()
                with self._reading(step, micro, weights, self.progress(step)):
                    self._measure(kind, batches, weights)
            own += self._ledger.cost(kind)
        return self._peers.total(own)

    def _measure(self, kind: str, batches: Mapping[str, Batch], weights: Mapping[str, float]) -> None:
        """Forward and backward of a step that is not made: neither gradients nor running statistics stay."""
        trained = [parameter for parameter in self._bare.parameters() if parameter.requires_grad]
        with aside(self._bare), FlopCounter() as counter, self._accelerator.autocast():
            losses = self._bare.forward(batches, weights, counter.task)  # never compiled
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            if not total.requires_grad:
                raise Mt2stError(ALL_FROZEN)
            torch.autograd.grad(total, trained, allow_unused=True)
        self._ledger.learn(kind, counter.counts, counter.unknown_operations)

    @contextmanager
    def _reading(self, step: int, micro: int, weights: Mapping[str, float], progress: float) -> Iterator[None]:
        """Inside, towers that are frozen for good read what they made; passes that they make go to the ledger."""
        if self._remembered is None:
            yield
            return
        before = self._remembered.kept
        with self._remembered.reading():
            yield
        if self._remembered.kept > before:
            self._remembered.made.append((step, micro, tuple(weights), progress))
        for kind, counts in self._remembered.passes():
            self._ledger.learn(kind, counts)
            self._ledger.add(kind)

    def _pass_again(self) -> None:
        """After a resume: the passes that the run had made, in the same batches; they are counted already."""
        if self._remembered is None or not self._remembered.again:
            return
        events, self._remembered.again = self._remembered.again, []
        now = self._freezes.held
        with aside(self._bare), torch.no_grad():
            for step, micro, tasks, progress in events:
                self._freezes.hold(progress)
                weights = dict.fromkeys(tasks, 1.0)
                index = step * self._config.accumulation + micro
                batches = {stream: self._batch(stream, index) for stream in self._mixture.streams(weights)}
                self._seed(step_seed(self._config.seed, step, micro, self._accelerator.process_index))
                with self._remembered.reading():
                    self._bare.forward(batches, weights)
        self._remembered.passes()
        self._freezes.hold_these(now)

    def _weights(self, step: int, progress: float) -> dict[str, float]:
        config = self._config
        if config.total_flops:
            return self._mixture.weights_of(progress, step=step, seed=config.seed)
        return self._mixture.weights(step, config.total_steps, seed=config.seed)

    def _rate(self, step: int, start: float, end: float, peak: float | None = None) -> float:
        if self._config.total_flops:
            return learning_rate_of(start, end, self._config, peak)
        return learning_rate_at(step, self._config, peak)

    def _update(
        self, step: int, weights: Mapping[str, float], start: float, end: float, *, forked: bool = False
    ) -> dict[str, Tensor]:
        """One optimiser step that takes progress from `start` to `end`. That of a fork counts as listening."""
        self._pass_again()
        config, accelerator = self._config, self._accelerator
        streams = self._mixture.streams(weights)
        self._freezes.hold(start)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(step, start, end, group.get("peak"))
        losses: dict[str, Tensor] = {}
        balancing = self._balancing if len(weights) > 1 else None
        for micro in range(config.accumulation):
            index = step * config.accumulation + micro
            batches = {stream: self._batch(stream, index) for stream in streams}
            kind = (f"{LISTENING}|fork|" if forked else "") + self.kind(batches, weights)
            random = step_seed(config.seed, step, micro, accelerator.process_index)
            self._seed(random)
            # Processes exchange gradients in the last backward pass, unless the balancer does it.
            exchange = micro == config.accumulation - 1 and not (balancing and balancing.weighs_gradients)
            # The first step of a kind runs under the counter, which only observes.
            counter = None if self._ledger.knows(kind) else FlopCounter()
            remembers = self._remembered is not None and self._remembered.active  # one stream after the other
            parallel = None if counter or balancing or remembers else self._parallel
            exchanged = nullcontext() if exchange else accelerator.no_sync(self._model)
            with self._watched(counter), exchanged, self._reading(step, micro, weights, start):
                if parallel and parallel.serves(batches, weights, self._freezes.held):
                    losses = parallel.gradients(batches, weights, 1 / config.accumulation)
                else:
                    losses = self._model(batches, weights, counter.task if counter else None)
                    if balancing:
                        balancing.backward(losses, weights, step_seed(config.seed, step, config.accumulation, 0))
                        losses = {name: loss.detach() for name, loss in losses.items()}  # lets the graphs go
                    else:
                        self._backward(losses, weights)
            if counter:
                counts = as_listening(counter.counts) if forked else counter.counts
                self._ledger.learn(kind, counts, counter.unknown_operations)
            self._ledger.add(kind)
            if not forked:
                self.unchecked += [(step, name, loss.detach()) for name, loss in losses.items()]
        self.optimiser_flops += self._optimiser_cost(weights)
        if config.clip_norm:
            clip = nn.utils.clip_grad_norm_ if self._plain else accelerator.clip_grad_norm_
            clip(self._parameters, config.clip_norm)
        optimizer = self._optimizer.optimizer if self._plain else self._optimizer
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if self._average and not forked:
            self._average.update()
            self.optimiser_flops += self._average.flops
        if balancing:

            def losses_again() -> dict[str, Tensor]:
                self._seed(random)
                with self._watched(counter), self._reading(step, micro, weights, start):
                    again: dict[str, Tensor] = self._model(batches, weights, counter.task if counter else None)
                if counter:
                    self._ledger.learn(kind, counter.counts, counter.unknown_operations)
                return again

            balancing.learn(self.learning_rate, losses_again)
        return losses

    def _optimiser_cost(self, weights: Mapping[str, float]) -> int:
        """FLOPs of the optimiser's step on the gradients that are there now: those of these active tasks."""
        reached = "+".join(weights), *self._freezes.held
        if reached not in self._optimiser_costs:
            groups, clipped = self._optimizer.param_groups, bool(self._config.clip_norm)
            self._optimiser_costs[reached] = optimiser_flops(groups, clipped=clipped)
        return self._optimiser_costs[reached]

    def _backward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> None:
        """The gradients of the weighted sum."""
        trained = {name: loss for name, loss in losses.items() if loss.requires_grad}
        if not trained:
            raise Mt2stError(ALL_FROZEN)
        shares = [weights[name] / self._config.accumulation for name in trained]
        if self._plain:  # the weights are where the pass starts, which needs no operator
            starts = [torch.full_like(loss, share) for loss, share in zip(trained.values(), shares, strict=True)]
            torch.autograd.backward(list(trained.values()), starts)
            return
        parts = [share * loss for loss, share in zip(trained.values(), shares, strict=True)]
        self._accelerator.backward(torch.stack(parts).sum())

    @contextmanager
    def _watched(self, counter: FlopCounter | None) -> Iterator[None]:
        """Under the counter, without compilation, which would hide operations from it; None = as usual."""
        eager = torch.compiler.set_stance("force_eager") if counter and self._config.compile else nullcontext()
        with eager, counter or nullcontext():
            yield

    def _seed(self, seed: int) -> None:
        """What `torch.manual_seed` does for this device.

        That function looks for every kind of accelerator each time, for 0.1 ms.
        """
        torch.default_generator.manual_seed(seed)
        if self._accelerator.device.type == "cuda":
            torch.cuda.manual_seed_all(seed)
        elif self._accelerator.device.type != "cpu":
            torch.manual_seed(seed)

    def _batch(self, stream: str, index: int) -> Batch:
        if (stream, index) in self._ahead:
            return self._ahead[stream, index]
        batch = self._streams[stream].batch(index, self._accelerator.process_index, self._accelerator.num_processes)
        device = self._accelerator.device
        if device.type == "cpu":
            return batch
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
