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

from mt2st.errors import Mt2stError, unknown_name


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
