"""What makes a training what it is: the hash by which a checkpoint of another one is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mt2st.balancing import Balancer
from mt2st.descriptions import describe_value
from mt2st.encoders.freezing import Freezes
from mt2st.files import content_hash
from mt2st.mixture import MT2ST
from mt2st.schedules import describe
from mt2st.training.config import TrainConfig, deciding

_ADDED = ("total_flops", "keep_best")  # since version 0.2: unused, they leave a checkpoint what it was


def fingerprint(
    config: TrainConfig,
    mixture: MT2ST,
    *,
    processes: int,
    identity: Mapping[str, Any],
    trained: Sequence[Mapping[str, Any]] = (),
    freezes: Freezes | None = None,
    balancer: Balancer | None = None,
) -> str:
    """The hash of everything that decides a training's numbers.

    Args:
        processes: how many train together.
        identity: further JSON values.
        trained: what is trained at learning rates of its own; empty = one rate for all.
    """
    whole = {
        "config": {name: value for name, value in deciding(config).items() if value or name not in _ADDED},
        "tasks": {name: [describe(task.schedule), task.stream] for name, task in mixture.tasks.items()},
        "processes": processes,
        "identity": dict(identity),
    }
    if trained:
        whole["trained"] = list(trained)
    if freezes is not None and freezes.entries:
        whole["freezes"] = [entry.text for entry in freezes.entries]
        if freezes.remembered and processes == 1:
            whole["remembered"] = [entry.text for entry in freezes.remembered]
    if balancer is not None:
        whole["balancer"] = describe_value(balancer)
    return content_hash(whole)
