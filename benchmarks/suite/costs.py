"""What a step costs: training FLOPs by active tasks, measured on an experiment that is thrown away."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

import torch
from torch import nn

from benchmarks.cases import AUXILIARY, PRIMARY, Experiment
from benchmarks.suite import ranks
from mt2st.balancing import Balancer
from mt2st.batch import Batch
from mt2st.encoders.freezing import frozen_at
from mt2st.errors import Mt2stError
from mt2st.flops import FlopCounter
from mt2st.mixture import MT2ST, Task
from mt2st.schedules import Constant, Schedule
from mt2st.training.augment import check_images
from mt2st.training.balanced import Balancing
from mt2st.training.config import TrainConfig, TrainSettings
from mt2st.training.economy import Economical, economise, turns
from mt2st.training.interface import Stream
from mt2st.training.trainer import ALL_FROZEN


class StepCosts:
    """FLOPs of one step by active set and by what balances it.

    The model lives from a measurement until `close`, so that no run's peak of memory holds a second one.

    Args:
        build: makes the experiment that is measured.
        announce: gets a line for each frozen tower that is run once, now.
        train: how runs are trained; it may ask for cheaper batches.

    Attributes:
        primary: the primary task's name.
        auxiliaries: the auxiliary tasks' names.
        remembers: whether a tower is frozen to the end from a point on, so that what its passes cost follows from which
            inputs come again.
        checkpoint_bytes: bytes of one checkpoint.
        weight_bytes: bytes of its weights alone.
    """

    def __init__(
        self,
        build: Callable[[], Experiment],
        announce: Callable[[str], None] = lambda line: None,
        train: TrainSettings | None = None,
    ) -> None:
        self._build, self._announce, self._train = build, announce, train or TrainSettings()
        self._open: tuple[Experiment, MT2ST] | None = None
        self._known: dict[tuple[tuple[str, ...], type, tuple[str, ...], int], int] = {}
        experiment, mixture = self._opened()
        self.primary = experiment.primary.name
        freezes = experiment.tuning.freezes
        self._timed = freezes.entries if freezes is not None else ()
        self.remembers = freezes is not None and bool(freezes.remembered) and ranks.world() == 1
        self.auxiliaries = tuple(objective.name for objective in experiment.auxiliaries)
        self.checkpoint_bytes = checkpoint_bytes([experiment.encoder, mixture])
        self.weight_bytes = weight_bytes([experiment.encoder, mixture])

    def __call__(self, active: tuple[str, ...], progress: float = 0.0, *, balancer: Balancer | None = None) -> int:
        """FLOPs of a step with these active tasks, primary first; of all processes, and of all passes.

        Args:
            active: the tasks that run.
            progress: says which parts are frozen, of those that are for a time, and how large batches are.
            balancer: what makes the gradients of two or more; None = a weighted sum of losses. Its class decides the
                cost.
        """
        balancer = balancer if len(active) > 1 else None
        passed = sum(point <= progress for point in turns(self._train))
        key = active, type(balancer), frozen_at(self._timed, progress), passed
        if key not in self._known:
            self._known[key] = self._measured(active, progress, balancer)
        return self._known[key]

    @property
    def turns(self) -> tuple[float, ...]:
        """Points of progress from which on other parts are frozen or batches have other shapes, 0 included."""
        points = {point for entry in self._timed for point in (entry.start, entry.stop) if 0 < point < 1}
        return (0.0, *sorted(points | set(turns(self._train))))

    def _opened(self) -> tuple[Experiment, MT2ST]:
        if self._open is None:
            experiment = self._build()
            mixture = mixture_of(experiment, lambda name: Constant()).to(_device())
            experiment.encoder.to(_device())
            experiment.tuning.run_once(self._announce)
            self._open = experiment, mixture
        return self._open

    def _measured(self, active: tuple[str, ...], progress: float, balancer: Balancer | None) -> int:
        experiment, mixture = self._opened()
        if experiment.tuning.freezes is not None:
            experiment.tuning.freezes.hold(progress)
        weights = dict.fromkeys(active, 1.0)
        config = TrainConfig(**vars(self._train), total_steps=1)
        streams = economise(experiment.streams, mixture, config, experiment.encoder)
        batches = {
            stream: {name: tensor.to(_device()) for name, tensor in _first(streams[stream], progress).items()}
            for stream in mixture.streams(weights)
        }

        def losses() -> dict[str, torch.Tensor]:
            found: dict[str, torch.Tensor] = mixture(experiment.encoder.features, batches, weights)
            return found

        with FlopCounter() as counter:
            if balancer is None:
                total = torch.stack(list(losses().values())).sum()
                if not total.requires_grad:
                    raise Mt2stError(ALL_FROZEN)
                total.backward()
            else:
                balancing = Balancing(balancer, [*experiment.encoder.parameters(), *mixture.parameters()])
                balancing.backward(losses(), weights, seed=0)
                balancing.learn(0.0, losses)
        return ranks.summed(counter.total)

    def check(self, settings: TrainSettings) -> None:
        """Whether runs can train as `settings` say.

        Raises:
            Mt2stError: they ask for what the case does not have.
        """
        if settings.shift_pixels:
            check_images(self._opened()[0].streams)

    @property
    def primary_only(self) -> int:
        """FLOPs of a step of the primary task alone."""
        return self((self.primary,))

    @property
    def everything(self) -> int:
        """FLOPs of a step of all tasks."""
        return self((self.primary, *self.auxiliaries))

    @property
    def auxiliary_share(self) -> float:
        """Share of MTL's FLOPs that the auxiliaries add: the limit of any saving at equal steps."""
        return 1 - self.primary_only / self.everything

    def close(self) -> None:
        """Let go of the model, if there is one; what was measured stays known."""
        if self._open is not None:
            self._open = None
            gc.collect()  # modules refer to each other in circles


def checkpoint_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of one checkpoint: every parameter and buffer, and AdamW's two moments of each trained one."""
    modules = list(modules)
    parameters = {parameter for module in modules for parameter in module.parameters()}
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return weight_bytes(modules) + sum(2 * parameter.numel() * parameter.element_size() for parameter in trained)


def weight_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of every parameter and buffer."""
    tensors = {tensor for module in modules for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def mixture_of(experiment: Experiment, schedule: Callable[[str], Schedule]) -> MT2ST:
    """The primary and its auxiliaries, each under the schedule of its name."""
    auxiliaries = [Task(objective, schedule(objective.name), AUXILIARY) for objective in experiment.auxiliaries]
    return MT2ST(Task(experiment.primary, Constant(), PRIMARY), auxiliaries)


def _first(stream: Stream, progress: float) -> Batch:
    """This process's share of a batch as they are at `progress`."""
    if isinstance(stream, Economical):
        return stream.first(progress, ranks.rank(), ranks.world())
    return stream.batch(0, ranks.rank(), ranks.world())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
