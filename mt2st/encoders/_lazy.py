"""Lazy, memoised features: the base of what encoders make of a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mt2st.batch import Batch
from mt2st.errors import Mt2stError


class LazyFeatures:
    """A view of one batch. Nothing is computed before an objective asks, and nothing twice.

    A subclass has a `functools.cached_property` for each feature that costs something.

    Args:
        encoder: the module that computes features.
        batch: name → tensor.
    """

    def __init__(self, encoder: Any, batch: Batch) -> None:
        self.encoder = encoder
        self.batch = batch

    def __getitem__(self, name: str) -> Tensor:
        """The batch's tensor `name`, or an error that says what the batch holds."""
        if name not in self.batch:
            held = ", ".join(sorted(self.batch))
            raise Mt2stError(f"the batch has no {name!r}, only {held}; give the task a stream that provides it")
        return self.batch[name]
