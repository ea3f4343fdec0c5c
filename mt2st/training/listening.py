"""What schedules that listen hear, measured on the validation split while a run trains.

Everything is measured on the first batches of the validation streams, with the same random numbers each time, so that
two values differ by what was learned between them: losses in evaluation mode, gradients in training mode, for they are
compared as those of a step. (In evaluation mode batch normalisation uses running statistics that lag behind, and all
tasks' gradients point at this lag.) The values are joint ones: every process hears the same number and decides alike.
All of it is training FLOPs, in the ledger's row "listening".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from mt2st.batch import Batch, shape_key
from mt2st.errors import Mt2stError, unknown_name
from mt2st.flops import BACKWARD, FORWARD, Counts, FlopCounter, FlopLedger
from mt2st.randomness import step_seed
from mt2st.schedules import SIGNALS, Listens, listens
from mt2st.training.aside import aside
from mt2st.training.interface import Stream
from mt2st.training.joint_model import JointModel
from mt2st.training.peers import Peers

LISTENING = "listening"  # its row in the ledger
_NO_STEP = -1  # seeds of listening: those of no training step
Result = TypeVar("Result")
Fork = Callable[[int, Sequence[str], float], AbstractContextManager[int]]


def as_listening(counts: Counts) -> Counts:
    """The counts of all tasks in the one row of listening."""
    phases = {FORWARD: 0, BACKWARD: 0}
    for of_task in counts.values():
        for phase, flops in of_task.items():
            phases[phase] += flops
    return {LISTENING: phases}


def learn_listening(ledger: FlopLedger, kind: str, work: Callable[[], Result]) -> Result:
    """Do `work`, counted once for each kind of it, and add it to the ledger's row of listening."""
    counter = None if ledger.knows(kind) else FlopCounter()
    with counter or nullcontext():
        result = work()
    if counter:
        ledger.learn(kind, as_listening(counter.counts), counter.unknown_operations)
    ledger.add(kind)
    return result


class Listening:
    """Asks each schedule that listens when it is due, measures its signal and lets it hear the value.

    Args:
        model: encoder and mixture, bare of any distributed wrapper.
        streams: validation streams, by the names of the training's.
        ledger: where the cost goes.
        seed: the run's.
        fork: (steps done, tasks, length) → a block in which the model has trained `length` of progress without these
            tasks; it enters with the steps that this took, and the model is put back when it ends.

    Raises:
        Mt2stError: a schedule listens, and there are no validation streams of its task and the primary, or a task has
            the name of the ledger's row.
    """

    def __init__(
        self,
        model: JointModel,
        streams: Mapping[str, Stream],
        ledger: FlopLedger,
        peers: Peers,
        accelerator: Accelerator,
        seed: int,
        fork: Fork,
    ) -> None:
        self._model, self._streams, self._ledger = model, streams, ledger
        self._peers, self._accelerator, self._seed, self._fork = peers, accelerator, seed, fork
        tasks = model.mixture.tasks
        self.schedules: dict[str, Listens] = {
            name: task.schedule for name, task in tasks.items() if listens(task.schedule)
        }
        self._primary = model.mixture.primary.name
        self._looks = dict.fromkeys(self.schedules, 0)
        self._cost = dict.fromkeys(self.schedules, 0)  # FLOPs of the dearest listening, of all processes
        self._forks: list[dict[str, Any]] = []  # those whose other branch, the run itself, is not yet at their end
        self.rows: list[dict[str, Any]] = []
        needed = {tasks[name].stream for name in self.schedules} | {model.mixture.primary.stream}
        if self.schedules and (missing := sorted(needed - set(streams))):
            raise Mt2stError(
                f"schedules of {', '.join(self.schedules)} listen to the validation split, but there is no validation "
                f"stream named {', '.join(missing)}; give the trainer validation_streams"
            )
        if self.schedules and LISTENING in tasks:
            raise Mt2stError(f"a task is named {LISTENING!r}, as the ledger's row is; give its objective another name=")

    # -- when --------------------------------------------------------------------------------------------------------

    def attend(self, step: int, progress: float, budget: float = math.inf) -> list[dict[str, Any]]:
        """What is heard after `step` steps, at `progress`; the rows for the log.

        Args:
            budget: training FLOPs that all processes may spend. A schedule whose dearest listening so far would not be
                paid for hears no more.

        Raises:
            Mt2stError: the budget does not pay for a first listening, or a signal is not finite.
        """
        heard: list[tuple[str, float, int]] = []
        due = [name for name, schedule in self.schedules.items() if not schedule.stopped]
        forked = {name for fork in self._forks for name in fork["tasks"]}
        starting = [
            name
            for name in due
            if name not in forked
            and progress >= (self._looks[name] + 1) * self.schedules[name].every
            and progress + self.schedules[name].length < 1
        ]
        for fork in [fork for fork in self._forks if step >= fork["until"]]:
            heard += self._measured(fork["tasks"], partial(self._benefits, fork), budget)
        for names in self._together(starting):
            schedule = self.schedules[names[0]]
            if schedule.signal == "own_loss":
                heard += self._measured(names, partial(self._losses, names, schedule.batches), budget)
            elif schedule.signal == "cosine":
                heard += self._measured(names, partial(self._cosines, names, schedule.batches), budget)
            elif schedule.signal in ("benefit", "joint_benefit"):
                self._measured(names, partial(self._begin_fork, names, step), budget)
            else:
                raise unknown_name(f"signal that {schedule!r} listens to", schedule.signal, SIGNALS)
            for name in names:
                self._looks[name] = max(self._looks[name] + 1, int(progress / self.schedules[name].every))
        rows = []
        for name, value, flops in heard:
            schedule = self.schedules[name]
            if not math.isfinite(value):
                raise Mt2stError(
                    f"listening after step {step}: {schedule.signal} of task {name!r} is {value}; lower the learning "
                    "rate or the task's weight"
                )
            schedule.hear(value)
            where = {"step": step, "progress": progress, "flops": flops, "task": name}
            rows.append({**where, "signal": schedule.signal, "value": value, "stopped": schedule.stopped})
        self.rows += rows
        return rows

    def _together(self, names: Iterable[str]) -> list[list[str]]:
        """Tasks that hear the same on as many batches are measured together, for they share features, or a fork."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name in names:
            schedule = self.schedules[name]
            own = name if schedule.signal == "benefit" else ""  # a fork without this task alone
            groups.setdefault((schedule.signal, schedule.batches, schedule.length, own), []).append(name)
        return list(groups.values())

    def _measured(
        self, names: list[str], work: Callable[[], Mapping[str, float]], budget: float
    ) -> list[tuple[str, float, int]]:
        """(task, joint value, training FLOPs so far) of `work`, unless the budget does not pay for it."""
        start = self._peers.total(self._ledger.total)
        if start + max(self._cost[name] for name in names) > budget:
            return []
        values = self._peers.joint(work())
        now = self._peers.total(self._ledger.total)
        if now > budget:
            raise Mt2stError(
                f"listening for {', '.join(names)} costs {now - start} training FLOPs, and the budget of {budget:.0f} "
                f"has {budget - start:.0f} left; raise it, or listen to fewer batches or with shorter forks"
            )
        for name in names:
            self._cost[name] = max(self._cost[name], now - start)
        return [(name, value, now) for name, value in values.items()]

    # -- what --------------------------------------------------------------------------------------------------------

    def _batches(self, name: str, number: int) -> Batch:
        stream = self._streams[self._model.mixture.tasks[name].stream]
        batch = stream.batch(number, self._accelerator.process_index, self._accelerator.num_processes)
        return {key: tensor.to(self._accelerator.device) for key, tensor in batch.items()}

    def _evaluated(
        self, signal: str, names: list[str], number: int, work: Callable[[dict[str, Tensor]], Any], training: bool
    ) -> Any:
        """`work` on the losses of `names` on validation batch `number`, counted."""
        tasks = self._model.mixture.tasks
        batches = {tasks[name].stream: self._batches(name, number) for name in names}
        shapes = ";".join(f"{stream}:{shape_key(batch)}" for stream, batch in batches.items())
        torch.manual_seed(step_seed(self._seed, _NO_STEP, number, self._accelerator.process_index))

        def measured() -> Any:
            with self._accelerator.autocast():
                losses = self._model.forward(batches, dict.fromkeys(names, 1.0))  # never compiled, so it is counted
            return work(losses)

        before = self._model.training
        self._model.train(training)
        try:
            return learn_listening(self._ledger, f"{LISTENING}|{signal}|{'+'.join(names)}|{shapes}", measured)
        finally:
            self._model.train(before)

    def _losses(self, names: list[str], batches: int) -> dict[str, float]:
        """Mean loss of each task on the validation batches."""
        sums = dict.fromkeys(names, 0.0)
        with torch.no_grad():
            for number in range(batches):
                for name, loss in self._evaluated("loss", names, number, dict, False).items():
                    sums[name] += float(loss)
        return {name: total / batches for name, total in sums.items()}

    def _begin_fork(self, names: list[str], step: int) -> dict[str, float]:
        """Train the branch without these tasks; the run itself is the other branch."""
        schedule = self.schedules[names[0]]
        with self._fork(step, names, schedule.length) as steps:
            without = self._primary_loss(schedule.batches)
        self._forks.append({"tasks": names, "until": step + steps, "without": without})
        return {}

    def _benefits(self, fork: dict[str, Any]) -> dict[str, float]:
        """(primary's loss without the tasks − with them) / with them, for each of them."""
        with_tasks = self._primary_loss(self.schedules[fork["tasks"][0]].batches)
        self._forks.remove(fork)
        return dict.fromkeys(fork["tasks"], (fork["without"] - with_tasks) / with_tasks)

    def _primary_loss(self, batches: int) -> float:
        return self._peers.joint(self._losses([self._primary], batches))[self._primary]

    def _cosines(self, names: list[str], batches: int) -> dict[str, float]:
        """Cosine of each task's gradient and the primary's, both averaged over the batches of all processes."""
        parameters = [parameter for parameter in self._model.encoder.parameters() if parameter.requires_grad]
        every = [self._primary, *names]
        sums: dict[str, list[Tensor | None]] = {name: [None] * len(parameters) for name in every}

        def gradients(losses: dict[str, Tensor]) -> None:
            for name in every:
                found = torch.autograd.grad(losses[name], parameters, retain_graph=True, allow_unused=True)
                for at, gradient in enumerate(found):
                    if gradient is not None:
                        before = sums[name][at]
                        sums[name][at] = gradient.float() if before is None else before + gradient

        with aside(self._model):  # running statistics stay as they are
            for number in range(batches):
                self._evaluated("gradient", every, number, gradients, True)
        return {name: self._cosine(sums[self._primary], sums[name]) for name in names}

    def _cosine(self, left: list[Tensor | None], right: list[Tensor | None]) -> float:
        """By the parameters that both reach; 0 where they share none, or one has no gradient."""
        shared = [(one, two) for one, two in zip(left, right, strict=True) if one is not None and two is not None]
        if not shared:
            return 0.0
        one, two = (self._peers.mean(torch.cat([pair[side].flatten() for pair in shared])) for side in (0, 1))
        norms = float(one.norm() * two.norm())
        return float(one @ two) / norms if norms else 0.0

    # -- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()},
            "looks": self._looks,
            "cost": self._cost,
            "forks": self._forks,
            "rows": self.rows,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(state["schedules"][name])
        self._looks, self._cost = dict(state["looks"]), dict(state["cost"])
        self._forks = [dict(fork) for fork in state["forks"]]
        self.rows = [dict(row) for row in state["rows"]]
