"""A schedule's description: equal for equal parameters, different for different ones, and never an address."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from mt2st.errors import Mt2stError
from mt2st.schedules import Constant, Diminish, Off, Sampled, Switch, describe

FACTOR = 2.0


class Cosine:
    """A plain class with a public and a private parameter."""

    def __init__(self, initial: float = 1.0, _period: float = 1.0) -> None:
        self.initial, self._period = initial, _period

    def __call__(self, progress: float) -> float:
        return self.initial * 0.5 * (1 + math.cos(math.pi * progress * self._period))


class Slotted:
    __slots__ = ("__hidden", "initial")

    def __init__(self, initial: float, hidden: float = 0.0) -> None:
        self.initial, self.__hidden = initial, hidden


class Both(Slotted):
    """Slots and a dictionary."""

    def __init__(self, initial: float, extra: Any) -> None:
        super().__init__(initial)
        self.extra = extra


class Line(NamedTuple):
    initial: float
    slope: float


@dataclass
class Quiet:
    """Its repr says nothing, and one parameter is no field."""

    initial: float = field(default=1.0, repr=False)
    rate: InitVar[float] = 1.0

    def __post_init__(self, rate: float) -> None:
        self._rate = rate


@dataclass(frozen=True)
class Wrapped:
    inner: Any
    initial: float = 1.0


class Mode(Enum):
    LINEAR = 1
    COSINE = 2


class Table(dict):
    """A dictionary with an attribute."""

    initial = 1.0


class Cached:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    @cached_property
    def table(self) -> list[float]:
        return [self.rate * step for step in range(3)]


class Speaks:
    """Says itself what it is; the lock is no parameter."""

    initial = 1.0

    def __init__(self, rate: float) -> None:
        self.rate, self.lock = rate, threading.Lock()

    def describe(self) -> dict[str, float]:
        return {"rate": self.rate}


def scaled(factor: float) -> Callable[[float], float]:
    return lambda progress: factor * progress


def with_default(factor: float) -> Callable[[float], float]:
    def fade(progress: float, factor: float = factor) -> float:
        return factor * progress

    return fade


def reading_a_global(value: float) -> Callable[[float], float]:
    return FunctionType((lambda progress: FACTOR * progress).__code__, {"FACTOR": value, "__name__": "user"})


PAIRS: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "dataclass": (Switch, 0.4, 0.5),
    "dataclass-nested": (lambda rate: Sampled(Diminish(rate=rate)), 1.0, 2.0),
    "dataclass-around-a-plain-class": (lambda initial: Sampled(Cosine(initial)), 1.0, 2.0),
    "dataclass-without-repr": (Quiet, 1.0, 2.0),
    "dataclass-init-variable": (lambda rate: Quiet(1.0, rate), 1.0, 2.0),
    "plain-class": (Cosine, 1.0, 2.0),
    "private-attribute": (lambda period: Cosine(1.0, period), 1.0, 2.0),
    "slots": (Slotted, 1.0, 2.0),
    "private-slot": (lambda hidden: Slotted(1.0, hidden), 1.0, 2.0),
    "slots-and-dictionary": (lambda extra: Both(1.0, extra), 1.0, 2.0),
    "named-tuple": (lambda slope: Line(1.0, slope), 1.0, 2.0),
    "function-closure": (scaled, 1.0, 2.0),
    "function-default": (with_default, 1.0, 2.0),
    "function-global": (reading_a_global, 1.0, 2.0),
    "function-in-an-attribute": (lambda rate: Wrapped(scaled(rate)), 1.0, 2.0),
    "method": (lambda initial: Cosine(initial).__call__, 1.0, 2.0),
    "partial": (lambda rate: partial(max, rate), 1.0, 2.0),
    "partial-keyword": (lambda rate: partial(max, key=rate), 1.0, 2.0),
    "array": (lambda rate: Wrapped(np.array([0.0, rate])), 1.0, 2.0),
    "array-type": (lambda kind: Wrapped(np.zeros(2, kind)), "float32", "float64"),
    "array-shape": (lambda shape: Wrapped(np.zeros(shape)), (2, 3), (3, 2)),
    "tensor": (lambda rate: Wrapped(torch.tensor([0.0, rate], requires_grad=True)), 1.0, 2.0),
    "list": (lambda rate: Wrapped([0.0, rate]), 1.0, 2.0),
    "dictionary": (lambda rate: Wrapped({0.5: rate}), 1.0, 2.0),
    "dictionary-key": (lambda rate: Wrapped({rate: 0.5}), 1.0, 2.0),
    "set": (lambda rate: Wrapped({"b", "a", rate}), "c", "d"),
    "subclass-of-dict": (lambda rate: Table({0.5: rate}), 1.0, 2.0),
    "ordered-dict": (lambda rate: Wrapped(OrderedDict(a=rate)), 1.0, 2.0),
    "deque": (lambda rate: Wrapped(deque([rate])), 1.0, 2.0),
    "fraction": (lambda rate: Wrapped(Fraction(rate)), 1, 2),
    "enum": (Wrapped, Mode.LINEAR, Mode.COSINE),
    "class": (Wrapped, Constant, Off),
    "function-of-c": (Wrapped, math.cos, math.sin),
    "ufunc": (Wrapped, np.cos, np.sin),
    "bytes": (Wrapped, b"a", b"b"),
    "not-a-number": (Wrapped, math.nan, math.inf),
    "own-description": (Speaks, 1.0, 2.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_parameters_give_equal_descriptions_and_others_different_ones(name: str) -> None:
    make, one, other = PAIRS[name]
    assert describe(make(one)) == describe(make(one))
    assert describe(make(one)) != describe(make(other))


@pytest.mark.parametrize("name", PAIRS)
def test_a_description_is_json_without_an_address(name: str) -> None:
    make, one, _ = PAIRS[name]
    text = json.dumps(describe(make(one)), allow_nan=False)
    assert not re.search(r"\b0x[0-9a-f]{6,}|\bat 0x", text)


def test_a_module_with_other_weights_is_another_schedule() -> None:
    torch.manual_seed(0)
    one = torch.nn.Linear(1, 1)
    torch.manual_seed(0)
    assert describe(Wrapped(one)) == describe(Wrapped(torch.nn.Linear(1, 1)))
    assert describe(Wrapped(one)) != describe(Wrapped(torch.nn.Linear(1, 1)))


def test_types_and_functions_of_other_names_differ() -> None:
    assert describe(Constant(1.0)) != describe(Cosine(1.0))
    assert describe(lambda progress: progress) != describe(lambda progress: progress * progress)
    assert describe(lambda progress: progress * 2) != describe(lambda progress: progress * 3)
    assert describe(lambda progress: (lambda: progress * 2)()) != describe(lambda progress: (lambda: progress * 3)())
    assert describe(lambda progress: math.cos(progress)) != describe(lambda progress: math.sin(progress))


def test_what_is_described_is_readable() -> None:
    assert describe(Switch(0.4)) == {
        "type": "mt2st.schedules.Switch",
        "parameters": {"at": 0.4, "initial": 1.0},
    }
    assert describe(Cosine(2.0))["parameters"] == {"initial": 2.0, "_period": 1.0}
    assert describe(Speaks(2.0))["parameters"] == {"mapping": [["rate", 2.0]]}


def test_a_cached_property_changes_nothing() -> None:
    used, fresh = Cached(1.0), Cached(1.0)
    assert used.table == [0.0, 1.0, 2.0]
    assert describe(used) == describe(fresh) != describe(Cached(2.0))


def test_what_holds_itself_is_described_once() -> None:
    one, other = Cosine(1.0), Cosine(1.0)
    one.me, other.me = one, other  # type: ignore[attr-defined]
    assert describe(one) == describe(other)


def outside() -> Any:
    return lru_cache(lambda progress: progress)


@pytest.mark.parametrize(
    ("make", "place", "kind"),
    [
        (lambda: Wrapped(threading.Lock()), "inner", "lock"),
        (lambda: Wrapped(Wrapped([0, threading.Lock()])), r"inner\.inner\.1", "lock"),
        (lambda: Both(1.0, (step for step in range(3))), "extra", "generator"),
        (lambda: Wrapped(outside()), "inner", "_lru_cache_wrapper"),
    ],
    ids=["lock", "deep", "generator", "nameless-function"],
)
def test_what_cannot_be_described_is_an_error(make: Callable[[], Any], place: str, kind: str) -> None:
    told = rf"its attribute '{place}' is a \S*{kind}; make the schedule"
    with pytest.raises(Mt2stError, match=rf"schedule \S+\.(Wrapped|Both) cannot be told .*{told}"):
        describe(make())


def test_another_process_gives_the_same_description() -> None:
    """Sets and code hold strings, whose hashes differ from process to process."""
    code = (
        "import json; from mt2st.schedules import describe; from tests.unit.mt2st.test_descriptions import *;"
        "fade = lambda progress: progress in {'a', 'b', 'c', 'd'} and FACTOR;"
        "print(json.dumps([describe(fade), describe(Wrapped({'a', 'b', 'c', 'd'})), describe(scaled(2.0))]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert json.loads(found.pop())[0]["globals"] == {"FACTOR": FACTOR}
