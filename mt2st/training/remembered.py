"""What a tower makes of its inputs once it is frozen for good ("text@from=0.5"): computed once an input, then kept.

From that point on its weights do not move and it is in evaluation mode, so the same input gives the same output. The
first step that asks for an input computes it, and all later ones read it. What a pass costs is counted when it is made,
in a row of the ledger of its own; steps cost what is left of them. An input with masked tokens is another one each
time, so a batch that holds one goes through the tower as ever.

Nothing of it is in a checkpoint. A resumed run makes the same passes again, in the same batches, and counts them no
second time, so it goes on to the bits of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt2st.encoders import TowerOutput
from mt2st.encoders.fine_tuning import Source
from mt2st.encoders.freezing import FreezeEntry, Freezes
from mt2st.encoders.frozen_outputs import input_keys, text_lengths
from mt2st.flops import BACKWARD, FORWARD, Counts, FlopCounter

FROZEN = "frozen towers"  # the ledger's row
_Event = tuple[int, int, tuple[str, ...], float]
_MOST_BYTES = 2_000_000_000  # of a part's outputs; further ones are computed each time they are asked for


class Remembered:
    """The outputs of all parts that `freezes` lets remember theirs. Reads and keeps inside `reading` only.

    Attributes:
        made: (step, micro-batch, active tasks, progress) of each micro-batch of which something was kept; the state of
            a checkpoint.
        kept: outputs that are kept.
        again: those that a resumed run must pass again before it goes on.
    """

    def __init__(self, freezes: Freezes, most_bytes: int = _MOST_BYTES) -> None:
        self._freezes = freezes
        self._on = False
        self._parts = [_Part(self, entry, source, most_bytes) for entry, source in freezes.remembered.items()]
        self._passes: list[tuple[str, Counts]] = []
        self.kept = 0
        self.made: list[_Event] = []
        self.again: list[_Event] = []

    @property
    def active(self) -> bool:
        """Whether a part is frozen for good now."""
        return any(self._freezes.holds(part.entry) for part in self._parts)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, towers that are frozen for good now read what is kept, and keep what is not."""
        self._on = self.active
        try:
            yield
        finally:
            self._on = False

    def on(self, entry: FreezeEntry) -> bool:
        """Whether the part of `entry` reads now."""
        return self._on and self._freezes.holds(entry)

    def spend(self, kind: str, counts: Counts) -> None:
        """A part has made a pass."""
        self._passes.append((kind, counts))

    def passes(self) -> list[tuple[str, Counts]]:
        """(kind, cost) of the passes since the last call."""
        found, self._passes = self._passes, []
        return found

    def state_dict(self) -> Mapping[str, Any]:
        """Which micro-batches made passes."""
        return {"made": [[step, micro, list(tasks), progress] for step, micro, tasks, progress in self.made]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Forget all outputs; `again` says which micro-batches must be passed again."""
        self.made = [(step, micro, tuple(tasks), progress) for step, micro, tasks, progress in state["made"]]
        self.again = list(self.made)
        for part in self._parts:
            part.forget()


class _Part:
    """A part's outputs in memory, and its tower's method that reads them."""

    def __init__(self, all_parts: Remembered, entry: FreezeEntry, source: Source, most_bytes: int) -> None:
        self.entry, self._all, self._source, self._most_bytes = entry, all_parts, source, most_bytes
        self._mask_id = getattr(source.owner, "mask_id", None) if source.pad_id is not None else None
        self._live = getattr(source.owner, source.method)
        self.forget()
        setattr(source.owner, source.method, torch.compiler.disable(self._output))

    def forget(self) -> None:
        """Let go of all outputs."""
        self._rows: dict[bytes, int] = {}
        self._embeddings: list[Tensor] = []
        self._states: list[Tensor] = []
        self._bytes = 0

    def _output(self, inputs: Tensor, *more: Any) -> TowerOutput:
        plain = all(each is None for each in more) and not inputs.is_floating_point()
        if not (plain and self._all.on(self.entry)) or (
            self._mask_id is not None and bool((inputs == self._mask_id).any())
        ):
            live: TowerOutput = self._live(inputs, *more)
            return live
        keys = [key.tobytes() for key in input_keys(inputs, self._source.pad_id)]
        first = {key: place for place, key in reversed(list(enumerate(keys))) if key not in self._rows}
        new = sorted(first.values())
        beside: dict[bytes, tuple[Tensor, Tensor]] = {}  # computed, but no room to keep
        if new:
            made = self._pass(inputs[new])
            lengths = self._lengths(inputs[new], made)
            for place, embedding, states, length in zip(new, made.embedding, made.tokens, lengths, strict=True):
                self._keep(keys[place], embedding.clone(), states[:length].clone(), beside)
        rows = [beside[key] if key in beside else self._kept(key) for key in keys]
        width = max(len(states) for _, states in rows) if self._source.pad_id is None else inputs.shape[1]
        tokens = rows[0][1].new_zeros(len(rows), width, rows[0][1].shape[-1])
        for place, (_, states) in enumerate(rows):
            tokens[place, : len(states)] = states
        return TowerOutput(tokens, torch.stack([embedding for embedding, _ in rows]))

    def _pass(self, inputs: Tensor) -> TowerOutput:
        """A pass of the tower, counted by itself."""
        shape = tuple(inputs.shape)
        with torch.no_grad(), FlopCounter(alone=True) as counter:
            made = TowerOutput(*self._live(inputs))
        spent = sum(flops for phases in counter.counts.values() for flops in phases.values())
        self._all.spend(f"{FROZEN}|{self.entry.part}|{list(shape)}", {FROZEN: {FORWARD: spent, BACKWARD: 0}})
        return made

    def _lengths(self, inputs: Tensor, made: TowerOutput) -> list[int]:
        """Real token states of each input."""
        if self._source.pad_id is None:
            return [made.tokens.shape[1]] * len(inputs)
        return [int(length) for length in text_lengths(inputs.cpu().numpy().astype(np.int64), self._source.pad_id)]

    def _keep(self, key: bytes, embedding: Tensor, states: Tensor, beside: dict[bytes, tuple[Tensor, Tensor]]) -> None:
        size = (embedding.numel() + states.numel()) * embedding.element_size()
        if self._bytes + size > self._most_bytes:
            beside[key] = embedding, states
            return
        self._bytes += size
        self._all.kept += 1
        self._rows[key] = len(self._embeddings)
        self._embeddings.append(embedding)
        self._states.append(states)

    def _kept(self, key: bytes) -> tuple[Tensor, Tensor]:
        row = self._rows[key]
        return self._embeddings[row], self._states[row]
