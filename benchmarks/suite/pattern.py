"""Pattern search: a strategy's settings, one axis after the other, with a given number of trials.

It starts at given settings and takes one step along each axis, up and then down. While a step is better it takes
another one the same way, so it goes on beyond the best value when that lies on an edge. When no step helps, steps are
halved. Nothing is random: equal scores, equal trials, and the first trials of a longer search are those of a shorter
one. (Hooke and Jeeves, J. ACM 8(2), 1961, without their extrapolation.) It finds the best nearby, so settings that are
known to be good can be given as further starts: it goes on from the best of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.strategies import Axis
from mt2st.errors import Mt2stError
from mt2st.files import content_hash
from mt2st.training.config import deciding

_MOST_HALVINGS = 6
_WORST = float("-inf")


@dataclass(frozen=True)
class Move:
    """A way to move settings.

    Attributes:
        field: what is moved.
        axis: how.
        auxiliary: whose value; "" = those of all.
        names: all auxiliaries.
    """

    field: str
    axis: Axis
    auxiliary: str = ""
    names: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The field, and whose it is."""
        return f"{self.field} of {self.auxiliary}" if self.auxiliary else self.field

    def value(self, settings: Any) -> Any:
        """What is moved, of these settings; where auxiliaries differ and move together, that of the first."""
        value = getattr(settings, self.field)
        if isinstance(value, Mapping):
            return value[self.auxiliary or next(iter(value))]
        return value

    def step(self, settings: Any, direction: int, halvings: int = 0) -> Any:
        """Settings one step further; None where the axis ends."""
        value = getattr(settings, self.field)
        if self.auxiliary:
            values = dict(value) if isinstance(value, Mapping) else dict.fromkeys(self.names, value)
            moved: Any = self.axis.beyond(values[self.auxiliary], direction, halvings)
            return None if moved is None else replace(settings, **{self.field: {**values, self.auxiliary: moved}})
        if isinstance(value, Mapping):
            together = {name: self.axis.beyond(each, direction, halvings) for name, each in value.items()}
            return None if None in together.values() else replace(settings, **{self.field: together})
        moved = self.axis.beyond(value, direction, halvings)
        return None if moved is None else replace(settings, **{self.field: moved})


def moves_of(axes: Mapping[str, Axis], auxiliaries: Sequence[str]) -> list[Move]:
    """The moves along a strategy's axes, in their order; one for each auxiliary where the axis says so."""
    return [
        Move(name, axis, owner, tuple(auxiliaries))
        for name, axis in axes.items()
        for owner in (auxiliaries if axis.each else ("",))
    ]


class PatternSearch:
    """The search of one strategy: `ask` for settings, then `tell` their score.

    Args:
        start: the first trial.
        moves: ways to go on, in the order in which they are tried.
        refusal: why settings must not be tried; "" = they may be.
        also: tried after `start`, before any step.

    Attributes:
        trials: settings and scores so far; None = the trial failed, which is worse than any score.
        refused: settings that came up and were not tried, with the reason.

    Raises:
        Mt2stError: `start` itself must not be tried.
    """

    def __init__(
        self, start: Any, moves: Sequence[Move], refusal: Callable[[Any], str], also: Sequence[Any] = ()
    ) -> None:
        self._moves, self._refusal, self._also = moves, refusal, also
        self.trials: list[tuple[Any, float | None]] = []
        self.refused: list[tuple[Any, str]] = []
        if why := refusal(start):
            raise Mt2stError(f"{type(start).__name__} cannot start its search: {why}")
        self._tried = {_key(start)}
        self._best, self._best_score = start, _WORST
        self._asked: Any = None
        self._path = self._walk()

    def ask(self) -> Any:
        """The settings to try next; the same until their score is told.

        Raises:
            Mt2stError: there is nothing left to try.
        """
        if self._asked is None:
            self._asked = next(self._path, None)
        if self._asked is None:
            raise Mt2stError(
                f"{type(self._best).__name__} has only {len(self.trials)} settings to try; give it an axis more, or "
                "ask for fewer trials"
            )
        return self._asked

    def tell(self, score: float | None) -> None:
        """The score of what was asked for last, higher is better; None = the trial failed."""
        settings, self._asked = self.ask(), None
        self.trials.append((settings, score))
        if score is not None and score > self._best_score:
            self._best, self._best_score = settings, score

    @property
    def best(self) -> Any:
        """The settings with the best score, the first of several."""
        return self._best

    @property
    def edges(self) -> list[str]:
        """Moves on which the best value is the last one tried on some side, though another step could be taken."""
        found = []
        for move in self._moves:
            values = [move.value(settings) for settings, _ in self.trials]
            best = move.value(self._best)
            if len(set(values)) < 2 or move.axis.choices:
                continue
            numbers = [move.axis.start if value is None else value for value in values]
            best = move.axis.start if best is None else best
            for direction in (1, -1):
                if not any((number - best) * direction > 0 for number in numbers):
                    beyond = move.step(self._best, direction)
                    if beyond is not None and not self._refusal(beyond):
                        found.append(f"{move.label} = {best:g}")
        return found

    def _walk(self) -> Iterator[Any]:
        yield self._best
        for settings in self._also:
            if self._may_try(settings):
                yield settings
        for halvings in range(_MOST_HALVINGS + 1):
            improved = True
            while improved:
                improved = False
                for move in self._moves:
                    for direction in (1, -1):
                        before = self._best_score
                        yield from self._along(move, direction, halvings)
                        if self._best_score > before:
                            improved = True
                            break  # on the other side lies what this one was better than

    def _along(self, move: Move, direction: int, halvings: int) -> Iterator[Any]:
        """One step, and further ones as long as each is the best so far."""
        while True:
            following = move.step(self._best, direction, halvings)
            if following is None or not self._may_try(following):
                return
            before = self._best_score
            yield following
            if not self._best_score > before:
                return

    def _may_try(self, settings: Any) -> bool:
        """Whether these settings are new and not refused."""
        if _key(settings) in self._tried:
            return False
        self._tried.add(_key(settings))
        if why := self._refusal(settings):
            self.refused.append((settings, why))
        return not why


def _key(settings: Any) -> str:
    return content_hash(deciding(settings))
