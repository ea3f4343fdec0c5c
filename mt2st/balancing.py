"""Balancing: methods that weigh the tasks of a step by their losses or gradients, beside their schedules.

A schedule says how much a task weighs at a step; a balancer takes the scheduled losses ℓᵢ = γᵢ·Lᵢ of the active tasks
and makes one gradient of them. There are two kinds. The first gives each loss a factor and needs one backward pass:

    weighting = UncertaintyWeighting(("vqa", "contrastive"))
    factors = weighting.factors(losses)                       # of detached losses
    sum(factors[name] * losses[name] for name in losses).backward()
    optimizer.step()
    weighting.learn(losses, None, learning_rate)

The second weighs the tasks' gradients of the shared parameters by their Gramian matrix, and needs one backward pass a
task:

    weights = UPGrad(("vqa", "contrastive")).combine(jacobian @ jacobian.T, ("vqa", "contrastive"), seed=0)
    gradient = weights @ jacobian                             # [tasks] @ [tasks, parameters]

`mt2st.training.balanced` calls both kinds in the training loop. A balancer knows all tasks by name and is asked for
those that are active, so tasks may drop out. What it remembers is in `state_dict`, bit for bit.

Uncertainty weighting and FAMO are written here, for their state must be in checkpoints and tasks must be able to drop
out; tests hold them equal to TorchJD's. The others are TorchJD's (extra `peers`). Does *not* assume the mean of the
losses to be what is wanted: without a balancer a step takes the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mt2st.errors import Mt2stError, check_range

_EPSILON = 1e-8  # FAMO's, under the logarithm


class LossBalancer(Protocol):
    """Gives each loss a factor.

    Attributes:
        looks_again: whether `learn` needs the losses of the same batch after the update, which is one more forward
            pass.
    """

    looks_again: bool

    def factors(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Task → factor of its scheduled loss.

        Args:
            losses: scheduled losses ℓᵢ of the active tasks, at least two: detached scalars on the CPU, of the joint
                batch of all processes.
        """

    def learn(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor] | None, learning_rate: float) -> None:
        """Called after the optimiser's update.

        Args:
            before: what `factors` got.
            after: the same losses, of the same batch, after the update; None unless `looks_again`.
            learning_rate: the optimiser's at this step.
        """

    def describe(self) -> Mapping[str, Any]: ...

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class GradientBalancer(Protocol):
    """Weighs the tasks' gradients of the parameters that they share."""

    def combine(self, gramian: Tensor, tasks: Sequence[str], seed: int) -> Tensor:
        """The weights of the gradients [m] in their combination.

        Args:
            gramian: inner products of the gradients of the scheduled losses ℓᵢ [m, m], m ≥ 2.
            tasks: the names of its rows, primary first.
            seed: what is drawn depends on it alone.
        """

    def describe(self) -> Mapping[str, Any]: ...

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


Balancer = LossBalancer | GradientBalancer


# -- factors of losses -------------------------------------------------------------------------------------------------


class UncertaintyWeighting:
    """Σᵢ ½·e^(−sᵢ)·ℓᵢ + ½·sᵢ with a learned log-variance sᵢ = log σᵢ² a task (Kendall et al., arXiv 1705.07115).

    The log-variances start at 0. Adam learns them at the model's learning rate, without weight decay, as it would learn
    parameters of the model. Their gradient ½ − ½·e^(−sᵢ)·ℓᵢ follows from the losses, so nothing more is computed.

    Args:
        tasks: names of all tasks.
    """

    looks_again = False

    def __init__(self, tasks: Sequence[str]) -> None:
        self._log_variances = _Numbers(tasks)

    def factors(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: 0.5 * torch.exp(-self._log_variances[name]) for name in losses}

    def learn(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor] | None, learning_rate: float) -> None:
        factors = self.factors(before)
        self._log_variances.step({name: 0.5 - factors[name] * loss for name, loss in before.items()}, learning_rate)

    def describe(self) -> Mapping[str, Any]:
        return {"tasks": list(self._log_variances.names)}

    def state_dict(self) -> Mapping[str, Any]:
        return self._log_variances.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._log_variances.load_state_dict(state)


class FAMO:
    """Fast adaptive multitask optimisation (Liu et al., arXiv 2306.03792): all log-losses fall at about one rate.

    The factors are c·zᵢ / (ℓᵢ + ε) with z = softmax(w) and c = 1 / Σᵢ zᵢ / (ℓᵢ + ε): the gradient is a convex
    combination of the tasks' gradients. After the update, w takes a step of Adam along the change of the log-losses
    (algorithm 2), for which the losses of the same batch are computed again.

    Args:
        tasks: names of all tasks.
        learning_rate: of w, > 0; the paper's is 0.025.
        weight_decay: of w, ≥ 0, the paper's γ. 0 = w may drift without limit.
    """

    looks_again = True

    def __init__(self, tasks: Sequence[str], *, learning_rate: float = 0.025, weight_decay: float = 1e-3) -> None:
        check_range("learning_rate", learning_rate, 0.0, 10.0, "FAMO's paper uses 0.025")
        check_range("weight_decay", weight_decay, 0.0, 10.0, "FAMO's paper uses 0.001")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._logits = _Numbers(tasks, weight_decay=weight_decay)

    def factors(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shares = self._shares(list(losses)) / self._raised(losses)
        return dict(zip(losses, shares / shares.sum(), strict=True))

    def learn(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor] | None, learning_rate: float) -> None:
        assert after is not None  # looks_again
        fall = torch.log(self._raised(before)) - torch.log(self._raised(after))
        shares = self._shares(list(before))
        gradient = shares * (fall - (shares * fall).sum())  # of softmax(w)·fall
        self._logits.step(dict(zip(before, gradient, strict=True)), self.learning_rate)

    def _shares(self, names: Sequence[str]) -> Tensor:
        """z of the active tasks [m]."""
        return torch.softmax(torch.stack([self._logits[name] for name in names]), dim=0)

    @staticmethod
    def _raised(losses: Mapping[str, Tensor]) -> Tensor:
        """ℓ + ε [m].

        Raises:
            Mt2stError: a loss is not above 0, so it has no logarithm.
        """
        for name, loss in losses.items():
            if loss <= -_EPSILON:
                raise Mt2stError(
                    f"FAMO takes the logarithm of losses, and that of task {name!r} is {float(loss):g}; use another "
                    "strategy for this task"
                )
        return torch.stack(list(losses.values())) + _EPSILON

    def describe(self) -> Mapping[str, Any]:
        return {
            "tasks": list(self._logits.names),
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
        }

    def state_dict(self) -> Mapping[str, Any]:
        return self._logits.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._logits.load_state_dict(state)


class _Numbers:
    """One learned number a task, from 0, each a parameter of its own under Adam: that of a task that is off rests."""

    def __init__(self, names: Sequence[str], *, weight_decay: float = 0.0) -> None:
        self.names = tuple(names)
        self._values = {name: nn.Parameter(torch.zeros(())) for name in self.names}
        self._adam = torch.optim.Adam(self._values.values(), weight_decay=weight_decay)

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name].detach()

    def step(self, gradients: Mapping[str, Tensor], learning_rate: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        for name, gradient in gradients.items():
            self._values[name].grad = gradient
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Task → its number, and Adam's step and moments; a number that never moved has no moments."""
        return {
            name: {
                "value": value.detach().clone(),
                **{key: part.clone() for key, part in self._adam.state[value].items()},
            }
            for name, value in self._values.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        moments = {}
        for place, (name, value) in enumerate(self._values.items()):
            found = dict(state[name])
            with torch.no_grad():
                value.copy_(found.pop("value"))
            if found:
                moments[place] = found
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})


# -- weights of gradients ----------------------------------------------------------------------------------------------


class _TorchJD:
    """What TorchJD's methods share: the names of all tasks, and no state."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self._aggregation = _torchjd(type(self).__name__)

    def describe(self) -> Mapping[str, Any]:
        return {"tasks": list(self.tasks)}

    def state_dict(self) -> Mapping[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to load."""


class UPGrad(_TorchJD):
    """Each task's gradient is projected onto the cone of directions that raise no task's loss, and the projections are
    summed (Quinton and Rey, arXiv 2406.16232).

    Summed and not averaged, which is TorchJD's preset: without conflicts the gradient is that of multi-task training.

    Raises:
        Mt2stError: TorchJD, or the solver that it needs, is not installed.
    """

    def combine(self, gramian: Tensor, tasks: Sequence[str], seed: int) -> Tensor:
        preference = torch.ones(len(tasks), dtype=gramian.dtype, device=gramian.device)
        weights: Tensor = self._aggregation.UPGradWeighting(preference)(gramian)
        return weights


class PCGrad(_TorchJD):
    """Each task's gradient loses its part against every other task's, in a random order, and the results are summed
    (Yu et al., arXiv 2001.06782, algorithm 1).

    Raises:
        Mt2stError: TorchJD is not installed.
    """

    def combine(self, gramian: Tensor, tasks: Sequence[str], seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # TorchJD draws the order from torch's generator of the CPU
            torch.default_generator.manual_seed(seed)
            weights: Tensor = self._aggregation.PCGradWeighting()(gramian)
        return weights


class PCD(_TorchJD):
    """Priority-constrained descent (arXiv 2606.29521): the primary's gradient, bent as little as lets each other task
    make a share τ of the progress that its own normalised gradient would give it, at the primary gradient's length.

    Gradients are normalised by a moving average of their squared length. It begins anew when the set of active tasks
    changes, as TorchJD's does when their number changes.

    Args:
        tasks: names of all tasks, primary first.
        tau: τ ∈ [0, 1]. 0 = the others must only not be harmed; 1 = each as fast as by itself, often impossible.
        beta: decay of the moving average, in [0, 1). 0 = this step's gradient alone.

    Raises:
        Mt2stError: TorchJD is not installed, or a knob is out of range.
    """

    def __init__(self, tasks: Sequence[str], *, tau: float = 0.02, beta: float = 0.999) -> None:
        super().__init__(tasks)
        check_range("tau", tau, 0.0, 1.0, "it is a share of the progress that a task would make alone")
        check_range("beta", beta, 0.0, 1.0 - 1e-9, "it is the decay of a moving average, for example 0.999")
        self.tau, self.beta = tau, beta
        self._active: tuple[str, ...] = ()
        self._weighting: Any = None

    def combine(self, gramian: Tensor, tasks: Sequence[str], seed: int) -> Tensor:
        if tuple(tasks) != self._active:
            self._begin(tasks)
        weights: Tensor = self._weighting(gramian)
        return weights

    def _begin(self, tasks: Sequence[str]) -> None:
        self._active = tuple(tasks)
        self._weighting = self._aggregation.PCDWeighting(tau=self.tau, beta=self.beta)

    def describe(self) -> Mapping[str, Any]:
        return {"tasks": list(self.tasks), "tau": self.tau, "beta": self.beta}

    def state_dict(self) -> Mapping[str, Any]:
        average = self._weighting.state_dict() if self._active else {}
        return {"active": list(self._active), "average": {name: part.clone() for name, part in average.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._active = ()
        if state["active"]:
            self._begin(state["active"])
            self._weighting(torch.eye(len(self._active)))  # makes TorchJD's buffers, which are then overwritten
            self._weighting.load_state_dict(state["average"])


def _torchjd(method: str) -> Any:
    """The package `torchjd.aggregation`.

    Raises:
        Mt2stError: it, or the solver of quadratic programs that the method needs, is not installed.
    """
    cure = "pip install 'mt2st[peers]'"
    try:
        import torchjd.aggregation

        weighting = getattr(torchjd.aggregation, f"{method}Weighting", None)
        if weighting is None:
            raise Mt2stError(f"the installed torchjd has no {method}Weighting; {cure} brings 0.18 or newer")
        weighting()  # TorchJD looks for its solver here
    except ImportError as error:
        raise Mt2stError(f"{method} needs packages that are not installed ({error}); {cure}") from None
    return torchjd.aggregation
