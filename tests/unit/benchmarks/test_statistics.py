"""Statistics against analytic oracles, slow obvious twins, and simulated coverage."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.report import resampling
from benchmarks.report.statistics import (
    bootstrap,
    compression,
    first_to_reach,
    paired_bootstrap,
    pareto_front,
    seed_difference,
    seed_interval,
)
from mt2st.errors import Mt2stError


def scores(
    seed: int, *, seeds: int = 3, items: int = 500, spread: float = 0.02, level: float = 0.8
) -> list[list[np.ndarray]]:
    """Right/wrong answers [items] of each seed; a seed's level varies by `spread`."""
    random = np.random.default_rng(seed)
    levels = np.clip(level + spread * random.standard_normal(seeds), 0, 1)
    return [[(random.random(items) < one).astype(np.float32)] for one in levels]


def test_seed_interval_is_students() -> None:
    values = [0.90, 0.95, 1.00]
    interval = seed_interval(values)
    low, high = stats.t.interval(0.95, 2, loc=0.95, scale=stats.sem(values))
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.95, low, high))
    assert interval.half_width == pytest.approx(4.302653 * 0.05 / math.sqrt(3), rel=1e-6)
    assert (interval.seeds, interval.over) == (3, "seeds")


def test_one_seed_without_items_has_no_interval() -> None:
    interval = seed_interval([0.5])
    assert interval.estimate == 0.5
    assert math.isnan(interval.low)
    assert interval.over == "nothing"


def test_seed_difference_is_the_paired_t_test() -> None:
    left, right = [1.0, 2.0, 4.0, 4.5], [0.5, 1.0, 3.5, 3.0]
    expected = stats.ttest_rel(left, right).confidence_interval(0.95)
    interval = seed_difference(left, right)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_the_bootstraps_standard_error_is_the_analytic_one() -> None:
    """Crossed mean without interaction: Var = s²_seeds/S + s²_items/N, here known exactly."""
    seed_effect = np.array([-0.3, 0.0, 0.1, 0.4])
    item_effect = np.random.default_rng(0).standard_normal(400)
    items = [[effect + item_effect] for effect in seed_effect]
    interval = bootstrap(items, resamples=20_000)
    of_seeds, of_items = seed_effect.var(ddof=1) / 4, item_effect.var() / 400
    expected = math.sqrt(stats.t.ppf(0.975, 3) ** 2 * of_seeds + stats.t.ppf(0.975, 399) ** 2 * of_items)
    assert interval.estimate == pytest.approx(float(np.mean([array[0].mean() for array in items])))
    assert interval.half_width == pytest.approx(expected, rel=0.03)


def test_one_seed_gives_the_interval_over_items() -> None:
    items = np.random.default_rng(1).random(1000)
    interval = bootstrap([[items]], resamples=10_000)
    assert interval.over == "items"
    assert interval.half_width == pytest.approx(1.962 * items.std() / math.sqrt(1000), rel=0.03)


def test_equal_answers_give_a_zero_interval() -> None:
    interval = bootstrap([[np.ones(10)]] * 3)
    assert (interval.low, interval.estimate, interval.high) == (1.0, 1.0, 1.0)


def slow_twin(
    left: list[np.ndarray], right: list[np.ndarray], statistic, resamples: int, random_seed: int
) -> tuple[float, float]:
    """The percentile interval of left − right, one resample, one seed, one item at a time."""
    items, seeds = np.random.default_rng([random_seed, 1]), np.random.default_rng([random_seed, 2])
    count = len(left)
    item_draws = items.integers(0, len(left[0]), size=(resamples, len(left[0])))
    seed_draws = seeds.integers(0, count, size=(resamples, count - 1))
    found = []
    for resample in range(resamples):
        total = 0.0
        for seed in seed_draws[resample]:
            a = np.array([left[seed][item] for item in item_draws[resample]])
            b = np.array([right[seed][item] for item in item_draws[resample]])
            total += statistic(a) - statistic(b)
        found.append(total / (count - 1))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("items", [1, 2, 7, 300, 301])
@pytest.mark.parametrize("clustered", [False, True])
def test_medians_of_resamples_are_exact(items: int, clustered: bool) -> None:
    """Against numpy's median of every resample; ties, equal values, and medians far from the one of all items."""
    random = np.random.default_rng(items)
    far = np.where(np.arange(items) % 2 == 0, 0.0, 1e6) + random.normal(size=items)
    rows = [random.integers(1, 9, items), random.normal(size=items), np.full(items, 3.0), far]
    clusters = np.arange(items) // 5 if clustered and items > 5 else None
    seeds = [[np.asarray(row)] for row in rows]
    fast = resampling.resample(seeds, "median", clusters, resamples=200)
    slow = resampling.resample(seeds, lambda values: float(np.median(values)), clusters, resamples=200)
    assert (fast.values == slow.values).all()
    assert (fast.point == slow.point).all()


@pytest.mark.parametrize(
    ("name", "function"), [("mean", np.mean), ("median", np.median), (lambda a: float(np.std(a)), np.std)]
)
def test_the_paired_bootstrap_equals_its_slow_twin(name, function) -> None:
    random = np.random.default_rng(3)
    left, right = [random.random(17) for _ in range(3)], [random.random(17) for _ in range(3)]
    interval = paired_bootstrap(
        [[a] for a in left], [[b] for b in right], name, method="percentile", resamples=50, random_seed=5
    )
    assert (interval.low, interval.high) == pytest.approx(slow_twin(left, right, function, 50, 5), abs=1e-12)
    expected = np.mean([function(a) - function(b) for a, b in zip(left, right)])
    assert interval.estimate == pytest.approx(float(expected))


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    items = scores(0, items=50)
    whole = bootstrap(items, "median"), bootstrap(items)
    monkeypatch.setattr("benchmarks.report.resampling._CHUNK_CELLS", 70)
    monkeypatch.setattr("benchmarks.report.resampling._CACHE_CELLS", 0)
    assert (bootstrap(items, "median"), bootstrap(items)) == whole


def test_pairing_removes_what_both_sides_share() -> None:
    """Right answers to the same hard items, plus one constant gain: the difference is exact though each side is not."""
    random = np.random.default_rng(0)
    shared = [random.random(300) for _ in range(3)]
    gain = paired_bootstrap([[array + 0.25] for array in shared], [[array] for array in shared])
    assert (gain.low, gain.estimate, gain.high) == pytest.approx((0.25, 0.25, 0.25))
    assert bootstrap([[array] for array in shared]).half_width > 0.01
    same = paired_bootstrap([[array] for array in shared], [[array] for array in shared])
    assert (same.low, same.high) == (0.0, 0.0)


def test_several_arrays_are_resampled_together() -> None:
    """A statistic of two arrays: accuracy from labels and predictions equals the mean of the score."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 200)
    predictions = [np.where(random.random(200) < 0.7, labels, 0) for _ in range(3)]
    pairs = [[labels, one] for one in predictions]
    direct = [[(labels == one).astype(float)] for one in predictions]
    assert bootstrap(pairs, lambda a, b: float((a == b).mean()), resamples=200) == pytest.approx(
        bootstrap(direct, resamples=200)
    )


def test_equal_input_gives_equal_intervals_and_another_seed_others() -> None:
    assert bootstrap(scores(1)[:1]) == bootstrap(scores(1)[:1])
    assert bootstrap(scores(1)[:1]) != bootstrap(scores(1)[:1], random_seed=1)


def coverage(method, *, seed_spread: float, item_spread: float, trials: int = 400) -> float:
    """Share of simulated studies (3 seeds × 300 items, true mean 0.8) whose 95 % interval holds the true mean."""
    hits = 0
    for trial in range(trials):
        random = np.random.default_rng(trial)
        items = item_spread * random.standard_normal(300)
        study = [[0.8 + seed_spread * random.standard_normal() + items] for _ in range(3)]
        interval = bootstrap(study, method=method, resamples=200)
        hits += interval.low <= 0.8 <= interval.high
    return hits / trials


@pytest.mark.parametrize(("seed_spread", "item_spread"), [(0.03, 0.1), (0.03, 0.5), (0.01, 0.5)])
def test_the_student_interval_covers_what_it_says(seed_spread: float, item_spread: float) -> None:
    assert 0.92 <= coverage("student", seed_spread=seed_spread, item_spread=item_spread) <= 0.99


def test_the_percentile_interval_of_three_seeds_covers_too_little() -> None:
    """Why it is not the default: three seeds cannot show how far a fourth would lie."""
    assert 0.65 <= coverage("percentile", seed_spread=0.03, item_spread=0.1) <= 0.85


def test_two_thousand_resamples_of_three_seeds_and_ten_thousand_items_take_about_a_second() -> None:
    left, right = scores(0, items=10_000), scores(1, items=10_000)
    seconds = []
    for _ in range(3):  # another process on the same core can slow one of them down
        start = time.process_time()
        paired_bootstrap(left, right)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 3.0, seconds  # measured: 0.5 s


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seed_interval([]), "at least one"),
        (lambda: seed_interval([1.0, math.nan]), "finite"),
        (lambda: seed_difference([1.0], [1.0, 2.0]), "same seeds"),
        (lambda: bootstrap([]), "no seeds"),
        (lambda: bootstrap([[np.ones(3)], [np.ones(4)]]), "same items"),
        (lambda: bootstrap([[np.ones((3, 2))]]), "same items"),
        (lambda: bootstrap([[np.ones(0)]]), "empty"),
        (lambda: bootstrap([[np.ones(3)]], "mode"), "'mean', 'median'"),  # type: ignore[arg-type]
        (lambda: bootstrap([[np.ones(3)]], method="bca"), "'student' or 'percentile'"),  # type: ignore[arg-type]
        (lambda: bootstrap([[np.ones(3)]], confidence=95), "confidence"),
        (lambda: paired_bootstrap([[np.ones(3)]], []), "same seeds"),
        (lambda: compression(1.0, 0.0), "must be > 0"),
    ],
)
def test_bad_input_names_the_cure(call, message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        call()


def test_compression() -> None:
    assert compression(44.0, 100.0) == pytest.approx(0.56)
    assert compression(100.0, 100.0) == 0.0
    assert compression(150.0, 100.0) == -0.5


def test_flops_to_reach_is_the_first_evaluation_not_an_interpolation() -> None:
    curve = [(1.0, 0.5), (2.0, 0.7), (3.0, 0.65), (4.0, 0.9)]
    assert first_to_reach(curve, 0.6) == 2.0
    assert first_to_reach(curve, 0.7) == 2.0
    assert first_to_reach(curve, 0.71) == 4.0
    assert first_to_reach(curve, 0.95) is None
    assert first_to_reach([], 0.5) is None
    assert first_to_reach(curve, 0.5, higher_is_better=False) == 1.0
    assert first_to_reach(curve, 0.49, higher_is_better=False) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12), st.booleans())
def test_pareto_front_equals_the_definition(points: list[tuple[int, int]], higher: bool) -> None:
    sign = 1 if higher else -1

    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a[0] <= b[0] and sign * a[1] >= sign * b[1] and a != b

    expected = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    front = pareto_front(points, higher_is_better=higher)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert all(points[a][0] <= points[b][0] for a, b in itertools.pairwise(front))
