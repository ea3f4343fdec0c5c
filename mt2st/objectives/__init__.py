"""Objectives: one task's loss a file.

An objective is an `nn.Module` with a `name`, called with features, returning a scalar.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Objective(Protocol):
    """One task's loss.

    Pulls what it needs from the lazy features of its batch; what it does not ask for is never computed. Does *not*
    decide whether to run (the mixture does) and does *not* apply its weight (the loop does).

    An objective may also have `labelled = True`: its outputs are labels of one set of data, which another set numbers
    in another way. A training that starts from another one's weights then leaves its head new.
    """

    name: str

    def __call__(self, features: Any) -> Tensor:
        """The mean loss over the batch, a scalar tensor."""
