"""One run on several processes: who this process is, and what all of them must agree on.

A launcher (`--processes N`, torchrun, `accelerate launch`) starts N processes with the same command. All of them plan,
train, validate and test in step; only the first one writes and prints. What they tell each other here goes over a
group of its own on the CPU (gloo), so that it is never mixed up with the tensors of a training step.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

from mt2st.errors import Mt2stError
from mt2st.files import content_hash

LAUNCHED_BY_US = "MT2ST_LAUNCHED"  # set by `--processes`, whose launcher says itself which process died
LOST = 3  # exit code of a process that ended because another one did, for the launcher of `--processes`
_CONNECT_SECONDS = 120
_AGREE_SECONDS = 20  # for the others to come to where one gave up
_PATIENCE = timedelta(days=7)  # a dead process is noticed by its closed connection, not by waiting
_control: Any = None
_met = False  # whether this process ever met others


class RankError(Mt2stError):
    """What one process of several met alone; each prints its own."""


class PeerLostError(RankError):
    """Another process of this run ended."""


def world() -> int:
    """Processes of this run, as the launcher said; 1 without a launcher.

    Raises:
        Mt2stError: a launcher's variable is no number.
    """
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """This process's number, from 0."""
    return _number("RANK", 0)


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def join() -> None:
    """Meet the other processes; does nothing without a launcher, or when they have met.

    Raises:
        Mt2stError: they do not come, or there are fewer GPUs than processes.
    """
    global _control, _met
    if world() == 1 or _control is not None:
        return
    import torch
    from torch import distributed

    # open_clip's loss gathers with a function that torch calls deprecated, and says so at every step.
    warnings.filterwarnings("ignore", r".*all_gather is deprecated", FutureWarning)
    if os.environ.get(LAUNCHED_BY_US):
        threading.Thread(target=_follow_the_launcher, daemon=True).start()
    _met = True
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        local, there = _number("LOCAL_RANK", rank()), torch.cuda.device_count()
        if local >= there:
            raise Mt2stError(
                f"process {local} of this machine has no GPU of its own, there are {there}; start at most {there}, or "
                "hide the GPUs (CUDA_VISIBLE_DEVICES=)"
            )
        torch.cuda.set_device(local)
    try:
        if not distributed.is_initialized():
            connect = timedelta(seconds=_CONNECT_SECONDS)
            distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=connect)
        _control = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise Mt2stError(
            f"process {rank()} could not meet the other {world() - 1} within {_CONNECT_SECONDS} s "
            f"({_first_line(error)}); check MASTER_ADDR and MASTER_PORT, and that all were started"
        ) from error


def _follow_the_launcher() -> None:
    """End in an orderly way when the launcher is gone: this process's standard input ends with it."""
    while os.read(0, 1 << 10):  # not through sys.stdin, whose lock would be held while Python shuts down
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def check_processes(asked: int) -> int:
    """The processes that train a run together: those of the launcher, or the number asked for.

    Raises:
        Mt2stError: a launcher started another number than was asked for.
    """
    if world() > 1 and asked not in (1, world()):
        raise Mt2stError(
            f"processes = {asked}, but the launcher started {world()}; leave --processes out, or start as many"
        )
    return max(asked, world())


def leave() -> None:
    """End the groups, so that no thread of theirs outlives this."""
    global _control
    if _control is not None:
        from torch import distributed

        _control = None
        distributed.destroy_process_group()


def end(code: int) -> NoReturn:
    """End this process with `code`, at the end of everything.

    The thread that carried the last message lets its tensors go after the message has arrived, and needs Python's lock
    for it. Where Python is shutting down by then, torch aborts a process whose work is done. So a process that met
    others flushes what it said, and leaves without Python's shutdown.
    """
    if _met:
        logging.shutdown()
        with suppress(BrokenPipeError):  # whoever read it is gone
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def from_first(value: Any) -> Any:
    """The first process's `value` (plain JSON values), in every process."""
    if world() == 1:
        return value
    from torch import distributed

    box = [value]
    with peers():
        distributed.broadcast_object_list(box, src=0, group=_control)
    return box[0]


def agree(what: str, value: Any) -> None:
    """Check that `value` (plain JSON values) is the same in every process.

    Raises:
        Mt2stError: it is not.
    """
    if world() == 1:
        return
    from torch import distributed

    found: list[Any] = [None] * world()
    with peers():
        distributed.all_gather_object(found, content_hash(value), group=_control)
    if len(set(found)) > 1:
        raise Mt2stError(
            f"the {world()} processes of this run differ in {what}; start all with one command, on one version and "
            "the same data"
        )


def summed(number: int) -> int:
    """The sum of `number` over all processes."""
    if world() == 1:
        return number
    import torch
    from torch import distributed

    total = torch.tensor(number, dtype=torch.int64)
    with peers():
        distributed.all_reduce(total, group=_control)
    return int(total)


def all_failed() -> bool:
    """Whether every process came here, having met one error: then the suite can go on; else all must end."""
    if world() == 1:
        return True
    from torch import distributed

    try:
        distributed.monitored_barrier(_control, timeout=timedelta(seconds=_AGREE_SECONDS))
    except RuntimeError:
        return False
    return True


@contextmanager
def peers() -> Iterator[None]:
    """Turns the errors that torch raises when another process ends into one line.

    Raises:
        PeerLostError: another process ended.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not _lost(error):
            raise
        raise PeerLostError(
            f"process {rank()}: another of the {world()} processes ended; the same command goes on from the last "
            "checkpoint"
        ) from error


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """The block is run by the first process, then by the others: what the first one makes, they find.

    An error of the first ends the others.
    """
    if world() == 1 or is_first():
        try:
            yield
        except BaseException:
            from_first(False)
            raise
        from_first(True)
        return
    if not from_first(None):
        time.sleep(2.0)  # the first one says why
        raise PeerLostError(f"process {rank()}: the first process could not go on")
    yield


def _lost(error: RuntimeError) -> bool:
    from torch import distributed

    if isinstance(error, distributed.DistError):
        return True
    text = str(error).lower()
    return "gloo" in text or "nccl" in text or "connection" in text


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdigit():
        raise Mt2stError(f"{name} = {text!r} is no number; a launcher such as torchrun sets it")
    return int(text) if text else default
