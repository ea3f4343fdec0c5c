"""The pattern search: its trials on functions whose best settings are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.strategies import Axis, Each, built_in
from benchmarks.suite.pattern import PatternSearch, moves_of
from mt2st.errors import Mt2stError


@dataclass(frozen=True)
class Point:
    """Settings of a made-up strategy."""

    learning_rate: float = 1.0
    at: float = 0.4
    weight: Each = 1.0
    stops: bool = False
    decay: float | None = None


RATE = {"learning_rate": Axis(factor=2.0)}
BOTH = {"at": Axis(step=0.2, low=0.1, high=0.9), **RATE}


def searched(
    axes: Mapping[str, Axis],
    score: Callable[[Any], float | None],
    count: int,
    refusal: Callable[[Any], str] = lambda point: "",
    also: tuple[Any, ...] = (),
) -> PatternSearch:
    search = PatternSearch(Point(), moves_of(axes, ("a", "b")), refusal, also)
    for _ in range(count):
        search.tell(score(search.ask()))
    return search


def test_a_better_step_is_followed_by_another_and_the_edge_is_left() -> None:
    search = searched(RATE, lambda point: -abs(math.log2(point.learning_rate / 8)), 5)
    assert [point.learning_rate for point, _ in search.trials] == [1, 2, 4, 8, 16]
    assert search.best == Point(8.0)
    assert search.edges == []


def test_a_worse_step_turns_round_and_then_steps_are_halved() -> None:
    search = searched(RATE, lambda point: -abs(math.log2(point.learning_rate)), 5)
    assert [point.learning_rate for point, _ in search.trials] == pytest.approx([1, 2, 0.5, 2**0.5, 2**-0.5], rel=1e-3)
    assert search.best == Point()


def test_a_best_value_on_an_edge_is_said() -> None:
    search = searched(RATE, lambda point: point.learning_rate, 3)
    assert search.edges == ["learning_rate = 4"]
    search = searched(RATE, lambda point: -point.learning_rate, 2)
    assert search.edges == ["learning_rate = 1"], "down was not tried"
    assert searched(RATE, lambda point: -point.learning_rate, 1).edges == [], "nothing was moved yet"


def test_a_bound_is_no_edge() -> None:
    search = searched({"at": Axis(step=0.2, low=0.1, high=0.9)}, lambda point: point.at, 3)
    assert [point.at for point, _ in search.trials] == [0.4, 0.6, 0.8]
    assert search.edges == []


def test_what_is_refused_costs_no_trial_and_is_kept_with_its_reason() -> None:
    search = searched(BOTH, lambda point: point.at, 6, lambda point: "as MTL" if point.at > 0.7 else "")
    assert all(point.at <= 0.7 for point, _ in search.trials)
    assert len(search.trials) == 6
    assert next((round(point.at, 1), why) for point, why in search.refused) == (0.8, "as MTL")
    with pytest.raises(Mt2stError, match="Point cannot start its search: never"):
        PatternSearch(Point(), moves_of(BOTH, ()), lambda point: "never")


def test_a_search_goes_on_from_the_better_of_two_starts() -> None:
    """The second hill, at 64, is out of reach of steps from 1, where the first one is the highest nearby."""

    def score(point: Any) -> float:
        return max(0.5 - abs(math.log2(point.learning_rate)), 2 - abs(math.log2(point.learning_rate / 64)))

    assert searched(RATE, score, 6).best == Point(1.0)
    found = searched(RATE, score, 6, also=(Point(32.0),))
    assert [point.learning_rate for point, _ in found.trials[:4]] == [1, 32, 64, 128]
    assert found.best == Point(64.0)
    same, refused = Point(), Point(0.25)
    search = searched(RATE, score, 3, refusal=lambda point: "too low" if point == refused else "", also=(same, refused))
    assert [point.learning_rate for point, _ in search.trials] == [1, 2, 0.5]
    assert search.refused == [(refused, "too low")]


def test_a_failed_trial_is_worse_than_any_score() -> None:
    search = searched(RATE, lambda point: None if point.learning_rate > 1 else -1e9 - point.learning_rate, 4)
    assert [score is None for _, score in search.trials] == [False, True, False, False]
    assert search.best.learning_rate == 0.25


def test_values_of_one_auxiliary_or_of_all_are_moved() -> None:
    def score(point: Point) -> float:
        return -abs(_weight(point, "a") - 2) - _weight(point, "b")

    one = searched({"weight": Axis(factor=2.0, each=True)}, score, 5)
    assert [(_weight(point, "a"), _weight(point, "b")) for point, _ in one.trials] == [
        (1, 1), (2, 1), (4, 1), (2, 2), (2, 0.5)
    ]  # fmt: skip
    assert one.best.weight == {"a": 2.0, "b": 0.5}
    assert one.edges == ["weight of b = 0.5"]
    start = Point(weight={"a": 1.0, "b": 3.0})
    search = PatternSearch(start, moves_of({"weight": Axis(factor=2.0)}, ("a", "b")), lambda point: "")
    search.tell(0.0)
    assert search.ask().weight == {"a": 2.0, "b": 6.0}


def _weight(point: Point, name: str) -> float:
    return point.weight[name] if isinstance(point.weight, Mapping) else point.weight


def test_choices_and_values_that_begin_at_none() -> None:
    axes = {"stops": Axis(choices=(False, True)), "decay": Axis(factor=10.0, start=0.01, low=0.01)}
    search = searched(axes, lambda point: point.stops - (point.decay or 0.01), 3)
    assert [(point.stops, point.decay) for point, _ in search.trials] == [(False, None), (True, None), (True, 0.1)]
    with pytest.raises(Mt2stError, match="Point has only 2 settings to try"):
        searched({"stops": Axis(choices=(False, True))}, lambda point: 0.0, 3)


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 3), st.floats(0, 1), st.integers(1, 20), st.integers(0, 10))
def test_a_shorter_search_is_the_start_of_a_longer_one_and_no_setting_comes_twice(
    peak: float, at: float, count: int, more: int
) -> None:
    def score(point: Any) -> float:
        return -abs(math.log2(point.learning_rate) - peak) - 3 * abs(point.at - at)

    short, long = searched(BOTH, score, count), searched(BOTH, score, count + more)
    assert long.trials[:count] == short.trials
    assert len({point for point, _ in long.trials}) == count + more
    best = max(score for _, score in long.trials if score is not None)
    assert score(long.best) == best


def test_scores_never_fall_along_the_best() -> None:
    search = PatternSearch(Point(), moves_of(BOTH, ()), lambda point: "")
    bests = []
    for _ in range(12):
        point = search.ask()
        search.tell(-abs(math.log2(point.learning_rate) - 2.3) - abs(point.at - 0.7))
        bests.append(-abs(math.log2(search.best.learning_rate) - 2.3) - abs(search.best.at - 0.7))
    assert all(one <= other for one, other in pairwise(bests))


@pytest.mark.parametrize("kind", built_in(), ids=lambda kind: kind.key)
def test_every_built_in_strategy_has_twelve_settings_to_try(kind: Any) -> None:
    """Each axis names a field, and each step gives settings that the class takes."""
    search = PatternSearch(kind.kind(), moves_of(kind.axes(), ("a", "b")), lambda point: "")
    for number in range(12):
        search.tell(float(-number))
    assert len({repr(point) for point, _ in search.trials}) == 12
