"""What surrounds a training loop: signals that end it between two steps, deterministic kernels, trackers that exist."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.tracking import LoggerType, get_available_trackers
from torch import Tensor, nn

from mt2st.errors import Mt2stError, unknown_name
from mt2st.training.checkpoint import newest_checkpoint
from mt2st.training.peers import Peers


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set the event, so that the running step ends whole; a second one acts as usual.

    Outside the main thread, where Python allows no handlers, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deterministic() -> Iterator[None]:
    """Ask torch for deterministic kernels; where none exists torch warns and goes on. Restored afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    module: Any = torch.utils.deterministic
    fill = module.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    module.fill_uninitialized_memory = False  # filling every new tensor with NaN costs time and changes nothing
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        module.fill_uninitialized_memory = fill


def check_trackers(trackers: Sequence[Any], folder: Path | None) -> None:
    """Raise unless accelerate can start these trackers; by itself it passes over one whose package is missing.

    Args:
        trackers: names such as "tensorboard" or "wandb", or `accelerate.tracking.GeneralTracker` objects.
        folder: where trackers that write files put them.

    Raises:
        Mt2stError: unknown name, a package that is not installed, or TensorBoard without a folder.
    """
    known = {str(logger) for logger in LoggerType} - {"all"}
    available = {str(logger) for logger in get_available_trackers()}
    for tracker in trackers:
        if not isinstance(tracker, str):
            continue
        if tracker not in known:
            raise unknown_name("tracker", tracker, known)
        if tracker not in available:
            raise Mt2stError(
                f"tracker {tracker!r} is not installed; `pip install 'mt2st[trackers]'` brings tensorboard and wandb"
            )
        if tracker == "tensorboard" and folder is None:
            raise Mt2stError("tracker 'tensorboard' writes files, but no folder was given; give the run one")


def check_losses(unchecked: Sequence[tuple[int, str, Tensor]], step: int, folder: Path | None, peers: Peers) -> None:
    """Raise if a loss is not finite in any process: all must end at one step, also those whose own losses are.

    Args:
        unchecked: (step from 0, task, loss) of every loss since the last look.
        step: optimiser steps done.
        folder: where the last good checkpoint is looked for.

    Raises:
        Mt2stError: names step, task, last good checkpoint and cure.
    """
    if not unchecked:
        return
    bad = not bool(torch.isfinite(torch.stack([loss.float() for _, _, loss in unchecked])).all())
    if not peers.any_of(bad)[0]:
        return
    cure = f"{_last_good(folder)}; lower the learning rate or the task's weight, or use precision=no"
    for at, name, loss in unchecked:
        if not bool(torch.isfinite(loss)):
            raise Mt2stError(f"the loss of task {name!r} is {float(loss)} at step {at} (from 0); {cure}")
    raise Mt2stError(f"a loss of another process is not finite by step {step}; {cure}")


def check_weights(model: nn.Module, step: int, folder: Path | None) -> None:
    """Raise if a weight is not finite: a finite loss can leave infinite gradients behind.

    Such weights must never become the last good checkpoint.

    Raises:
        Mt2stError: names the weight, the step, the last good checkpoint and the cure.
    """
    if bool(torch.stack([torch.isfinite(parameter).all() for parameter in model.parameters()]).all()):
        return
    bad = next(name for name, parameter in model.named_parameters() if not bool(torch.isfinite(parameter).all()))
    raise Mt2stError(
        f"weight {bad} is not finite after step {step}; {_last_good(folder)}; lower the learning rate, or use "
        "precision=no"
    )


def _last_good(folder: Path | None) -> str:
    good = newest_checkpoint(folder) if folder else None
    return f"last good checkpoint: {good[0] if good else 'none'}"
