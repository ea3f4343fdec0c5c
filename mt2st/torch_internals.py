"""What this package uses of torch and accelerate that is not public, all of it in this file.

It was tested with the versions in `TESTED`. A version that lacks a name says so by a one-line error when the name is
used, and `tests/unit/mt2st/test_torch_internals.py` fails.

Why each is needed:

* `TorchDispatchMode` sees every operator that runs; `torch.utils.flop_counter` is built on it as well.
* The sequence number of autograd tells where a backward node was made, so that its cost belongs to the right task. The
  node that runs is known to torch alone.
* A tensor counts how often it was written to. Comparing counts tells at once whether weights may have changed; hashing
  them takes a second.
* accelerate keeps the first mixed precision of a process, and has no public way to forget it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mt2st.errors import Mt2stError

TESTED = {"torch": "2.14.1", "accelerate": "1.15.0"}


def _lacking(package: Any, name: str) -> Mt2stError:
    kind = package.__name__
    return Mt2stError(
        f"{kind} {package.__version__} has no {name}, which mt2st needs; install {kind} {TESTED[kind]}, with which it "
        "was tested"
    )


def _torch_name(path: str) -> Any:
    """The object `torch.<path>`, or an error that names it."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            raise _lacking(torch, f"torch.{path}")
    return found


try:
    from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
except ImportError:
    raise _lacking(torch, "torch.utils._python_dispatch.TorchDispatchMode") from None


def autograd_sequence_number() -> int:
    """The number that the next autograd node of this thread will carry."""
    count: Callable[[], int] = _torch_name("_C._autograd._get_sequence_nr")
    return count()


def running_node_number() -> int | None:
    """The sequence number of the autograd node whose backward runs in this thread; None outside a backward pass."""
    node = _torch_name("_C._current_autograd_node")()
    if node is None:
        return None
    if not hasattr(node, "_sequence_nr"):
        raise _lacking(torch, "torch.autograd.graph.Node._sequence_nr")
    number: int = node._sequence_nr()
    return number


def times_written(tensor: torch.Tensor) -> int:
    """How often `tensor` was written to in place since it was made."""
    if not hasattr(tensor, "_version"):
        raise _lacking(torch, "torch.Tensor._version")
    return int(tensor._version)


def forget_precision(precision: str) -> None:
    """Let a process whose accelerate state has another mixed precision than `precision` take a new one."""
    import accelerate
    from accelerate.state import AcceleratorState, is_initialized

    if not is_initialized() or AcceleratorState().mixed_precision == precision:
        return
    if not hasattr(AcceleratorState, "_reset_state"):
        raise _lacking(accelerate, "accelerate.state.AcceleratorState._reset_state")
    AcceleratorState._reset_state(reset_partial_state=False)
