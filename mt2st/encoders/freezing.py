"""Which parts of an encoder are frozen, how far up, and when.

    text               the whole part, all the time
    text:4             its layers 0 to 4 (0 = embeddings), all the time
    text@until=0.3     the whole part while progress < 0.3; then it is trained
    text:4@from=0.7    its layers 0 to 4 while progress ≥ 0.7; until then they are trained

A frozen parameter has no gradient, so neither momentum nor weight decay moves it; a part that is frozen whole is in
evaluation mode meanwhile. Progress is optimiser steps done / all of them, so a resumed run needs no state.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from mt2st.errors import Mt2stError

if TYPE_CHECKING:
    from mt2st.encoders.fine_tuning import Source

_FORMS = "PART, PART:LAYER, or one of them with @until=PROGRESS or @from=PROGRESS, such as text@until=0.3"


@dataclass(frozen=True)
class FreezeEntry:
    """One entry of `freeze`: frozen while `start` ≤ progress < `stop`, up to `layer`, as it was written."""

    text: str
    part: str
    layer: str = ""
    start: float = 0.0
    stop: float = math.inf

    @property
    def whole(self) -> bool:
        """Whether the whole part is frozen."""
        return not self.layer

    @property
    def timed(self) -> bool:
        """Whether it is frozen for a part of the training only."""
        return self.start > 0 or self.stop < math.inf

    def holds(self, progress: float) -> bool:
        """Whether it is frozen at `progress` in [0, 1]."""
        return self.start <= progress < self.stop


def entries(freeze: Sequence[str]) -> list[FreezeEntry]:
    """The entries of `freeze`.

    Raises:
        Mt2stError: an entry of another form, or a part that is named twice.
    """
    found: list[FreezeEntry] = []
    for text in freeze:
        where, at, when = text.partition("@")
        part, colon, layer = where.partition(":")
        if colon and not layer:
            raise Mt2stError(f"freeze = {text!r} names no layer; write {_FORMS}")
        start, stop = _times(text, when) if at else (0.0, math.inf)
        if part in (entry.part for entry in found):
            raise Mt2stError(f"freeze names {part!r} twice; name each part once")
        found.append(FreezeEntry(text, part, layer, start, stop))
    return found


def _times(text: str, when: str) -> tuple[float, float]:
    word, _, value = when.partition("=")
    try:
        point = float(value)
    except ValueError:
        point = math.nan
    if word not in ("until", "from") or not 0 < point < 1:
        raise Mt2stError(f"freeze = {text!r} names no point of progress between 0 and 1; write {_FORMS}")
    return (0.0, point) if word == "until" else (point, math.inf)


def frozen_at(timed: Iterable[FreezeEntry], progress: float) -> tuple[str, ...]:
    """Which of these entries hold at `progress`, as they were written."""
    return tuple(entry.text for entry in timed if entry.holds(progress))


class Freezes:
    """Parts that are frozen for a part of the training.

        freezes = Freezes.of(encoder.parts(), ("text@until=0.3",))
        freezes.hold(step / total_steps)                   # before each step
        freezes.held                                       # ("text@until=0.3",) or ()

    Args:
        timed: entry → its parameters, and its module if that is frozen whole, else None.
        remembered: entry → where its outputs come from, for those that are frozen whole to the end; see
            `mt2st.training.remembered`.
    """

    def __init__(
        self,
        timed: Mapping[FreezeEntry, tuple[Sequence[nn.Parameter], nn.Module | None]] | None = None,
        remembered: Mapping[FreezeEntry, Source] | None = None,
    ):
        self.entries = tuple(timed or {})
        self.remembered = dict(remembered or {})
        self._timed = dict(timed or {})
        self._held: dict[FreezeEntry, bool] = dict.fromkeys(self._timed, False)
        for entry, (_, module) in self._timed.items():
            if module is not None:
                self._keep_mode(entry, module)

    @classmethod
    def of(cls, parts: Mapping[str, Any], freeze: Sequence[str], *, remember: bool = False) -> Freezes:
        """The timed ones of `freeze`, once `fine_tune` has refused what makes no sense and done the others.

        Args:
            parts: an encoder's `parts()`. Their parameters that are trainable now are those that are frozen for a time.
            remember: the trainer computes the outputs of a tower that is frozen whole to the end once an input.
        """
        from mt2st.encoders.fine_tuning import layer_numbers

        timed: dict[FreezeEntry, tuple[Sequence[nn.Parameter], nn.Module | None]] = {}
        for entry in entries(freeze):
            if entry.timed:
                module: nn.Module = parts[entry.part].module
                numbers = layer_numbers(module)
                chosen = [
                    parameter
                    for name, parameter in module.named_parameters()
                    if parameter.requires_grad and (entry.whole or numbers[name] <= int(entry.layer))
                ]
                timed[entry] = chosen, module if entry.whole else None
        sources = {
            entry: parts[entry.part].source
            for entry in timed
            if remember and entry.whole and entry.stop == math.inf and parts[entry.part].source is not None
        }
        return cls(timed, sources)

    def holds(self, entry: FreezeEntry) -> bool:
        """Whether `entry` holds now."""
        return self._held[entry]

    @property
    def held(self) -> tuple[str, ...]:
        """The entries that hold now."""
        return tuple(entry.text for entry, held in self._held.items() if held)

    def hold(self, progress: float) -> None:
        """Freeze what is frozen at `progress`, and let go of the rest, in place."""
        self.hold_these(frozen_at(self._timed, progress))

    def hold_these(self, texts: Sequence[str]) -> None:
        """Freeze the entries that were written so, and let go of the rest, in place."""
        for entry, (parameters, module) in self._timed.items():
            held = entry.text in texts
            if held != self._held[entry]:
                self._held[entry] = held
                for parameter in parameters:
                    parameter.requires_grad_(not held)
                if module is not None:
                    module.train()  # the loop trains; see `_keep_mode`

    def _keep_mode(self, entry: FreezeEntry, module: nn.Module) -> None:
        """Let `module.train()` leave it in evaluation mode while it is frozen."""

        def train(this: nn.Module, mode: bool = True) -> nn.Module:
            return type(this).train(this, mode and not self._held[entry])

        module.train = types.MethodType(train, module)  # type: ignore[method-assign]
