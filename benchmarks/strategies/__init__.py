"""Strategies: how auxiliaries are scheduled while a model trains. One file each; nothing else lists their names.

A strategy is a frozen dataclass with a method `schedule(auxiliary)`, in a file of this folder or in anybody's:

    @dataclass(frozen=True)
    class Cosine:
        \"\"\"Auxiliaries fade along half a cosine.\"\"\"

        learning_rate: float = 2e-3
        weight: Each = 1.0

        def schedule(self, auxiliary: str) -> Schedule:
            return CosineFade(each(self.weight, auxiliary))

    python -m benchmarks vqa --strategies STL MTL my_fade.py:Cosine --cosine.weight 0.5

Each field is an option, `--<key>.<field>`. A field of type `Each` takes one value, or one for each auxiliary by name.
An auxiliary of weight 0 is off: it is never computed. `MTL:contrastive+masked_lm` is MTL with these auxiliaries alone,
a row of its own beside MTL, as an ablation needs it.
What a strategy may say besides:
    name       class attribute: its name in tables; without it the class's own
    position   class attribute: its place in tables; without it after those that have one, by name
    recipe     class attribute of a file of this folder: "default" = it runs where nobody names strategies; another word
               = in the recipe of that name, beside the default ones; without it on request alone
    axes       class attribute: field → `Axis`, along which `tune` moves it; learning rate and weight have one anyway
    schedules  method in place of `schedule`, auxiliaries → all their schedules: for one that must know them all
    train      method, `TrainSettings` → those it trains with
    balancer   method, names of all tasks → what makes one gradient of their losses (see `mt2st.balancing`)
This package imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import content_hash, file_hash
from mt2st.schedules import Off, Schedule
from mt2st.training.config import TrainSettings

if TYPE_CHECKING:
    from mt2st.balancing import Balancer

Each = float | Mapping[str, float]
DEFAULT = "default"
_FOLDER = Path(__file__).parent
_LAST = 1_000_000


class Strategy(Protocol):
    """Settings of a strategy. One that must know all auxiliaries has `schedules` in place of `schedule`."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""

    def schedule(self, auxiliary: str) -> Schedule:
        """The schedule of the auxiliary task of that name."""


def each(value: Each, auxiliary: str) -> float:
    """The value for `auxiliary`: the one of its name, or the one for all.

    Raises:
        Mt2stError: values by name, and none for this auxiliary.
    """
    if not isinstance(value, Mapping):
        return float(value)
    if auxiliary not in value:
        given = " ".join(f"{name}={number:g}" for name, number in value.items())
        raise Mt2stError(
            f"{given} names no value for auxiliary {auxiliary!r}; add {auxiliary}=…, or give one value for all"
        )
    return float(value[auxiliary])


def schedules_of(strategy: Any, auxiliaries: Sequence[str]) -> dict[str, Schedule]:
    """Auxiliary's name → its schedule under a strategy; where its `weight` is 0, `Off`, whatever the strategy."""
    weight = getattr(strategy, "weight", None)
    active = [name for name in auxiliaries if weight is None or each(weight, name) != 0]
    if hasattr(strategy, "schedules"):
        own = dict(strategy.schedules(tuple(active)))
    else:
        own = {name: strategy.schedule(name) for name in active}
    return {name: own.get(name, Off()) for name in auxiliaries}


def training_of(strategy: Any, settings: TrainSettings) -> TrainSettings:
    """How a strategy trains: as `settings` say, but for what it changes."""
    changed: TrainSettings = strategy.train(settings) if hasattr(strategy, "train") else settings
    return changed


def balancer_of(strategy: Any, tasks: Sequence[str]) -> Balancer | None:
    """What makes one gradient of the tasks' losses under a strategy; None = their weighted sum.

    Raises:
        Mt2stError: it needs a package that is not installed, or a knob is out of range.
    """
    made: Balancer | None = strategy.balancer(tuple(tasks)) if hasattr(strategy, "balancer") else None
    return made


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How `tune` moves one field: by a factor, by a step, or to the next of some choices.

    Attributes:
        factor: times or divided by this; 0 = not by a factor.
        step: plus or minus this; 0 = not by a step.
        choices: the values, in order; empty = numbers.
        low: least value that makes sense.
        high: largest one.
        start: where the search begins if the field is None.
        each: move the value of one auxiliary at a time; otherwise those of all together.
    """

    factor: float = 0.0
    step: float = 0.0
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = math.inf
    start: float = 0.0
    each: bool = False

    def beyond(self, value: Any, direction: int, halvings: int = 0) -> Any:
        """The value one step from `value`, up (1) or down (-1); None where there is none.

        `halvings` of the step: √factor for 1, step / 2. Choices have no finer steps.
        """
        if self.choices:
            place = self.choices.index(value) + direction
            return self.choices[place] if halvings == 0 and 0 <= place < len(self.choices) else None
        value = self.start if value is None else value
        share = direction / 2**halvings
        moved = value * self.factor**share if self.factor else value + self.step * share
        moved = float(f"{moved:.4g}")
        return moved if self.low <= moved <= self.high and moved != value else None


# Every strategy with such a field moves along it, whether its class says so or not.
_COMMON_AXES = {"learning_rate": Axis(factor=2.0), "weight": Axis(factor=2.0)}


@dataclass(frozen=True)
class StrategyKind:
    """A strategy as the suite knows it.

    Attributes:
        name: its name in tables, plots and records.
        key: prefix of its options.
        kind: the class of its settings.
        place: "" for a file of this folder; for somebody else's `file.py:Class`, with the file's absolute path.
        only: the auxiliaries that run; the others' weight is 0. Empty = all.
    """

    name: str
    key: str
    kind: Any
    place: str = ""
    only: tuple[str, ...] = ()

    @property
    def code_hash(self) -> str:
        """SHA-256 of somebody else's file: its code is part of a run. "" for a strategy of this folder."""
        whole = self.place.removesuffix(":" + "+".join(self.only))
        return file_hash(Path(whole.rpartition(":")[0])) if self.place else ""

    def axes(self) -> dict[str, Axis]:
        """Field → how `tune` moves it: the strategy's own first, then learning rate and weight."""
        known = {field.name for field in fields(self.kind)}
        own: Mapping[str, Axis] = getattr(self.kind, "axes", {})
        return {**own, **{name: axis for name, axis in _COMMON_AXES.items() if name in known and name not in own}}

    def started_from(self, reference: Strategy | None) -> Strategy:
        """Settings that nobody has tuned: the strategy's defaults, at the learning rate and weight of `reference`."""
        settings = self.kind()
        known = {field.name for field in fields(self.kind)}
        for name in ("learning_rate", "weight"):
            if name in known and hasattr(reference, name):
                settings = replace(settings, **{name: getattr(reference, name)})
        return settings

    def restricted(self, settings: Any, auxiliaries: tuple[str, ...]) -> Any:
        """`settings` with weight 0 for each of `auxiliaries` that is not in `only`.

        Raises:
            Mt2stError: `only` names an auxiliary that is none of them.
        """
        for name in self.only:
            if name not in auxiliaries:
                raise unknown_name(f"auxiliary in strategy {self.name!r}", name, auxiliaries)
        weights = {name: each(settings.weight, name) if name in self.only else 0.0 for name in auxiliaries}
        return replace(settings, weight=weights) if self.only else settings


@cache
def built_in() -> tuple[StrategyKind, ...]:
    """The strategies of this folder, in the order of tables."""
    found = []
    for path in sorted(_FOLDER.glob("*.py")):
        if not path.stem.startswith("_"):
            module = importlib.import_module(f"benchmarks.strategies.{path.stem}")
            found.append(_kind_in(module, "", str(path), key=path.stem))
    return tuple(sorted(found, key=lambda kind: (getattr(kind.kind, "position", _LAST), kind.name)))


def strategy_names() -> tuple[str, ...]:
    """Names of the strategies of this folder, in the order of tables."""
    return tuple(kind.name for kind in built_in())


def default_strategies(recipe: str = DEFAULT) -> tuple[str, ...]:
    """Names of the strategies that run where nobody names any, and of those that `recipe` adds to them."""
    return tuple(kind.name for kind in built_in() if getattr(kind.kind, "recipe", "") in (DEFAULT, recipe))


def strategy_recipes() -> tuple[str, ...]:
    """The recipes that strategies of this folder make by naming them, without the default one."""
    return tuple(
        dict.fromkeys(kind.kind.recipe for kind in built_in() if getattr(kind.kind, "recipe", "") not in ("", DEFAULT))
    )


def find_strategy(text: str) -> StrategyKind:
    """The strategy called `text`: a name or key of this folder, or `path/to/file.py:Class`.

    `:Class` is needed only where a file holds several. Somebody else's file is Python: loading it runs it. A further
    `:auxiliary+auxiliary` limits the strategy to these auxiliaries.

    Raises:
        Mt2stError: no such name (with the nearest ones), no such file, or a class that is no strategy.
    """
    path, colon, name = text.rpartition(":")
    if text.endswith(".py"):
        path, colon, name = text, ":", ""
    if colon and path.endswith(".py"):
        return _outside(Path(path).resolve(), name)
    if colon:
        return _limited(find_strategy(path), name)
    for kind in built_in():
        if text.lower() in (kind.name.lower(), kind.key):
            return kind
    raise unknown_name("strategy", text, strategy_names(), "A class in a file works too: my_fade.py:Cosine.")


def find_strategies(texts: Iterable[str]) -> tuple[StrategyKind, ...]:
    """The strategies of these names.

    Raises:
        Mt2stError: as `find_strategy`, or two of them have one name or one key.
    """
    found: list[StrategyKind] = []
    for text in texts:
        kind = find_strategy(text)
        for other in found:
            if {kind.name, kind.key} & {other.name, other.key}:
                raise Mt2stError(
                    f"strategy {text!r} is named {kind.name!r}, as another one is; give its class another `name`"
                )
        found.append(kind)
    return tuple(found)


def _limited(kind: StrategyKind, names: str) -> StrategyKind:
    """`kind` with the auxiliaries of `names` alone, such as "contrastive+masked_lm"."""
    only = tuple(names.split("+"))
    if kind.only or not all(only) or "weight" not in {field.name for field in fields(kind.kind)}:
        raise Mt2stError(
            f"{kind.name}:{names} names no auxiliaries of a strategy that weighs them; for example "
            "MTL:contrastive+masked_lm"
        )
    suffix = f":{names}"
    place = f"{kind.place}{suffix}" if kind.place else ""
    return replace(kind, name=kind.name + suffix, key=kind.key + suffix, place=place, only=only)


def _outside(path: Path, name: str) -> StrategyKind:
    kind = _kind_in(_loaded(path), name, str(path))
    if any({kind.name, kind.key} & {other.name, other.key} for other in built_in()):
        raise Mt2stError(
            f"{path}: strategy {kind.name!r} has the name of a built-in one; give the class another `name`"
        )
    return kind


@cache
def _loaded(path: Path) -> Any:
    """The module of a file outside; loaded once, so that its classes are the same whoever asks."""
    if not path.is_file():
        raise Mt2stError(
            f"strategy file {path} does not exist; give the path of a Python file, such as my_fade.py:Cosine"
        )
    module_name = f"mt2st_strategy_{content_hash(str(path))[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise Mt2stError(f"strategy file {path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up here
    try:
        spec.loader.exec_module(module)
    except Mt2stError:
        raise
    except Exception as error:
        raise Mt2stError(
            f"strategy file {path} cannot be imported: {type(error).__name__}: {error}; mend it"
        ) from error
    return module


def _kind_in(module: Any, name: str, path: str, key: str = "") -> StrategyKind:
    """The strategy class of a module; `key` is given for files of this folder."""
    classes = {
        found_name: found
        for found_name, found in vars(module).items()
        if inspect.isclass(found)
        and found.__module__ == module.__name__
        and (hasattr(found, "schedule") or hasattr(found, "schedules"))
    }
    if name and name not in classes:
        raise unknown_name(
            f"strategy class in {path}", name, classes, "A strategy is a dataclass with schedule(auxiliary)."
        )
    if not name and len(classes) != 1:
        names = ", ".join(classes) or "none"
        raise Mt2stError(
            f"{path} must hold one class with schedule(auxiliary), it has {names}; "
            f"name one, such as {Path(path).name}:Cosine"
        )
    kind = classes[name] if name else next(iter(classes.values()))
    if not is_dataclass(kind) or "learning_rate" not in {field.name for field in fields(kind)}:
        raise Mt2stError(
            f"{path}: {kind.__name__} must be a dataclass with a field learning_rate; see benchmarks/strategies"
        )
    try:
        kind()
    except TypeError as error:
        raise Mt2stError(f"{path}: {kind.__name__}() fails ({error}); give every field a default") from None
    shown = str(getattr(kind, "name", kind.__name__))
    if not re.search("[A-Za-z0-9]", shown):
        raise Mt2stError(f"{path}: the strategy's name is {shown!r}; it needs a letter or digit")
    own_key = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
    return StrategyKind(shown, key or own_key, kind, "" if key else f"{path}:{kind.__name__}")
