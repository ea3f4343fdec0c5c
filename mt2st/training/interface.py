"""What the training loop needs of others, and what it leaves: encoders, streams, results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from mt2st.batch import Batch
from mt2st.flops import FlopLedger

ALL_FROZEN = "no active task has a parameter to train: all that it uses is frozen; take a part out of freeze"


class Encoder(Protocol):
    """What the loop needs of a model: an `nn.Module` that turns a batch into features."""

    def features(self, batch: Batch) -> Any: ...


class Stream(Protocol):
    """A source of batches whose batch `index` depends on nothing but `index`, `rank` and `world`."""

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch: ...


@dataclass
class TrainResult:
    """What a finished training leaves.

    `curve` holds one row a validation: step, flops, seconds and the metrics. `listening` holds one row for each value
    that a schedule heard: step, progress, flops, task, signal, value, and whether the task stopped. `chosen_step` is
    the step whose weights the model has: the last one, or that of the best validation (`keep_best`).
    The FLOPs of the optimiser (see `mt2st.training.side_costs`) and of validation are in no ledger.
    """

    steps: int
    train_seconds: float
    evaluate_seconds: float
    curve: list[dict[str, Any]]
    ledger: FlopLedger
    listening: list[dict[str, Any]] = field(default_factory=list)
    chosen_step: int = 0
    optimiser_flops: int = 0
    validation_flops: int = 0


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: a checkpoint of the last finished step was written before this was raised."""


@dataclass
class Progress:
    """What a checkpoint keeps beside the tensors and the parts."""

    step: int = 0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    optimiser_flops: int = 0
    validation_flops: int = 0
    flops_a_validation: int = 0  # measured at the first one
