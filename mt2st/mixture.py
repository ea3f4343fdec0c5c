"""MT2ST: one primary task and auxiliaries that fade away (arXiv 2406.18038)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mt2st.batch import Batch
from mt2st.errors import Mt2stError
from mt2st.objectives import Objective
from mt2st.schedules import Constant, Schedule, listens, stays_constant, weight_of


@dataclass(frozen=True)
class Task:
    """An objective, the schedule of its weight, and the stream its batches come from.

    Tasks of the same stream share one batch a step and its features: what two of them need is computed once.
    """

    objective: Objective
    schedule: Schedule = field(default_factory=Constant)
    stream: str = "primary"

    @property
    def name(self) -> str:
        return self.objective.name


class MT2ST(nn.Module):
    """The mixture: which tasks run at a step, at which weight, and their losses.

        mixture = MT2ST(Task(vqa), [Task(contrastive, Diminish(rate=5.0), stream="captions")])
        weights = mixture.weights(step, total_steps, seed=0)      # {"vqa": 1.0, "contrastive": 0.97}
        losses = mixture(encoder.features, batches, weights)      # only the active tasks run

    Args:
        primary: the task that is left in the end; its schedule must keep one weight, as `Constant` does.
        auxiliaries: the tasks that fade; their schedules decide when.

    Raises:
        Mt2stError: two tasks with one name, or a primary that is scheduled away.
    """

    def __init__(self, primary: Task, auxiliaries: Sequence[Task] = ()) -> None:
        super().__init__()
        if not stays_constant(primary.schedule):
            raise Mt2stError(
                f"the primary task {primary.name!r} has schedule {primary.schedule!r}; it must be Constant, because "
                "the primary task runs at every step"
            )
        self.primary = primary
        self.tasks: dict[str, Task] = {}
        self.objectives = nn.ModuleDict()
        for task in (primary, *auxiliaries):
            if task.name in self.tasks:
                raise Mt2stError(f"two tasks are named {task.name!r}; give one objective another name=")
            self.tasks[task.name] = task
            if isinstance(task.objective, nn.Module):
                key = task.name.replace(".", "_")
                # "type" and "half" are methods of every module.
                while hasattr(self.objectives, key) or key in self.objectives:
                    key += "_"
                self.objectives[key] = task.objective

    def weights(self, step: int, total_steps: int, *, seed: int) -> dict[str, float]:
        """Weights of the tasks that are active at `step`, primary first; a task that is absent does not run.

        Raises:
            Mt2stError: `step` is not in [0, total_steps), or a weight is negative or not finite.
        """
        if not 0 <= step < total_steps:
            raise Mt2stError(f"step = {step} is outside [0, total_steps = {total_steps})")
        return self.weights_of(step / total_steps, step=step, seed=seed)

    def weights_of(self, progress: float, *, step: int, seed: int) -> dict[str, float]:
        """As `weights`, where progress ∈ [0, 1) is no share of the steps but, say, of a budget."""
        weights = {}
        for name, task in self.tasks.items():
            weight = weight_of(task.schedule, progress, step=step, seed=seed, task=name)
            if weight > 0:
                weights[name] = weight
        return weights

    @property
    def listening(self) -> bool:
        """Whether a schedule listens."""
        return any(listens(task.schedule) for task in self.tasks.values())

    def streams(self, weights: Mapping[str, float]) -> list[str]:
        """The streams that the active tasks need, each once."""
        return list(dict.fromkeys(self.tasks[name].stream for name in weights))

    def forward(
        self,
        make_features: Callable[[Batch], Any],
        batches: Mapping[str, Batch],
        weights: Mapping[str, float],
        scope: Callable[[str], Any] | None = None,
    ) -> dict[str, Tensor]:
        """Unweighted losses of the active tasks.

        Args:
            make_features: batch → features, the encoder's `features`; called once a stream.
            batches: stream → batch.
            weights: the active tasks, from `weights`.
            scope: context manager factory entered around each task (the ledger's `FlopCounter.task`).
        """
        features = {stream: make_features(batches[stream]) for stream in self.streams(weights)}
        losses: dict[str, Tensor] = {}
        for name in weights:
            task = self.tasks[name]
            if scope is None:
                losses[name] = task.objective(features[task.stream])
            else:
                with scope(name):
                    losses[name] = task.objective(features[task.stream])
        return losses
