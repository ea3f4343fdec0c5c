"""Statistics of runs: intervals over seeds × items, paired differences, FLOPs saved, FLOPs to a score, Pareto front.

**What is random.** A strategy's number varies with the training seed and with the test items drawn; every item is
answered by every seed, so the two are *crossed*. Shape legend: S seeds, N items, R resamples.

**Resampling.** Resample r draws N items with replacement, the same ones for every seed (and, in a paired comparison,
for both sides), and S − 1 seeds with replacement (S − 1 of S make the bootstrap variance of a mean over seeds unbiased:
s²/S, where S draws would give (S − 1)/S of it; Rao and Wu 1988). Drawing both ways at once is Owen's pigeonhole
bootstrap (2007), which is conservative for noise that is neither the seed's nor the item's: it counts that part up to
three times.

**Intervals.** `student` (default): estimate ± √(t²_{S−1}·V_seeds + t²_{N−1}·V_items), where V_seeds + V_items is the
variance over resamples. `percentile`: quantiles of the resamples. With three seeds and many items the latter is never
much wider than the seeds' range and holds the true mean in about four of five repetitions instead of 95 %
(tests/unit/benchmarks/test_statistics.py measures both), so it is not the default. One seed: over items only, and
said so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy import stats

from mt2st.errors import Mt2stError, check_range

Method = Literal["student", "percentile"]
Statistic = Literal["mean", "median"] | Callable[..., float]
Items = Sequence[np.ndarray]  # the item arrays of one seed, each [N]

RESAMPLES = 2_000
_CHUNK_CELLS = 2_000_000  # item draws held at once: 16 MB of int64, whatever N and R are
# Draw counts kept between calls: at most 25 MB for each of eight numbers of items (groups differ).
_CACHE_CELLS = 25_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: mean over seeds of the statistic on all items.
        low, high: ends of the interval; NaN where nothing can be said (one seed without items).
        seeds: S, number of seeds in it.
        over: what varies in it: "seeds × items", "seeds", "items" or "nothing".
    """

    estimate: float
    low: float
    high: float
    seeds: int
    over: str

    @property
    def half_width(self) -> float:
        """Half of the interval's width: the number after ±."""
        return (self.high - self.low) / 2


def seed_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Mean over seeds ± t_{S−1}·s/√S (Student): for a metric that has no per-item form.

    Raises:
        Mt2stError: there are no values, or one is not finite.
    """
    array = _finite(values)
    check_range("confidence", confidence, 0.0, 1.0, "0.95 is a 95 % interval")
    estimate = float(array.mean())
    if len(array) == 1:
        return Interval(estimate, math.nan, math.nan, 1, "nothing")
    half = float(stats.t.ppf((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return Interval(estimate, estimate - half, estimate + half, len(array), "seeds")


def seed_difference(left: Sequence[float], right: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """`left − right`, paired by seed, Student's t over seeds."""
    if len(left) != len(right):
        raise Mt2stError(
            f"paired difference: {len(left)} values against {len(right)}; give the same seeds on both sides"
        )
    return seed_interval(list(_finite(left) - _finite(right)), confidence=confidence)


def bootstrap(
    seeds: Sequence[Items],
    statistic: Statistic = "mean",
    *,
    method: Method = "student",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    random_seed: int = 0,
) -> Interval:
    """Interval of a strategy's statistic over seeds × items; see the module's text.

    Args:
        seeds: for each seed its item arrays, each [N]; "mean" and "median" use the first array.
        statistic: "mean", "median", or a function of the item arrays [N] → float.
        random_seed: fixes the resamples; equal input, equal interval.

    Raises:
        Mt2stError: no seeds, no items, or seeds with different numbers of items.
    """
    point, resampled, items = _resampled(seeds, statistic, resamples, random_seed)
    return _interval(point, resampled, items, method, confidence, random_seed)


def paired_bootstrap(
    left: Sequence[Items],
    right: Sequence[Items],
    statistic: Statistic = "mean",
    *,
    method: Method = "student",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    random_seed: int = 0,
) -> Interval:
    """Interval of `left − right`, both sides with the same resampled seeds and items.

    Args:
        left, right: item arrays by seed, in the same order of seeds; the items are the same ones in the same order.

    Raises:
        Mt2stError: different numbers of seeds or items.
    """
    if len(left) != len(right):
        raise Mt2stError(
            f"paired difference: {len(left)} seeds against {len(right)}; give the same seeds on both sides"
        )
    point, resampled, items = _resampled([*left, *right], statistic, resamples, random_seed)  # [2S], [R, 2S]
    count = len(left)
    differences = point[:count] - point[count:], resampled[:, :count] - resampled[:, count:]
    return _interval(*differences, items, method, confidence, random_seed)


# -- costs -------------------------------------------------------------------------------------------------------------


def compression(flops: float, reference_flops: float) -> float:
    """1 − flops / reference: 0.56 = 56 % fewer training FLOPs than the reference; negative = more.

    The definition is for equal numbers of optimiser steps; the caller sees to that.
    """
    if not reference_flops > 0:
        raise Mt2stError(f"compression: the reference's training FLOPs are {reference_flops!r}; they must be > 0")
    return 1.0 - flops / reference_flops


def first_to_reach(
    curve: Sequence[tuple[float, float]], target: float, *, higher_is_better: bool = True
) -> float | None:
    """Cost of the first evaluation whose score is at least as good as `target`; None if none is.

    No interpolation: between two evaluations nobody looked.

    Args:
        curve: (cost, score) in order of cost.
    """
    for cost, score in curve:
        if score >= target if higher_is_better else score <= target:
            return cost
    return None


def pareto_front(points: Sequence[tuple[float, float]], *, higher_is_better: bool = True) -> list[int]:
    """Indices of the points (cost, score) on the Pareto front, by rising cost.

    No other point beats one of them in cost or score and equals or beats it in the other. Equal points are all on the
    front.
    """
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(range(len(points)), key=lambda index: (points[index][0], sign * points[index][1]))
    front: list[int] = []
    for index in order:
        if not front:
            front.append(index)
            continue
        cost, score = points[front[-1]]
        better = sign * points[index][1] < sign * score
        if better or (points[index][0] == cost and points[index][1] == score):
            front.append(index)
    return front


# -- resampling --------------------------------------------------------------------------------------------------------


def _resampled(
    seeds: Sequence[Items], statistic: Statistic, resamples: int, random_seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The statistic of each seed [S], its values on resamples of the items [R, S], and the number of items N."""
    arrays = _checked(seeds)
    point = np.array([_value(items, statistic) for items in arrays])
    return point, _item_resamples(arrays, statistic, resamples, random_seed), len(arrays[0][0])


def _checked(seeds: Sequence[Items]) -> list[list[np.ndarray]]:
    if not seeds:
        raise Mt2stError("no seeds to compute an interval from; finish at least one run")
    arrays = [[np.asarray(array) for array in items] for items in seeds]
    shapes = {array.shape for items in arrays for array in items}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise Mt2stError(
            f"item arrays have shapes {sorted(shapes)}; score all seeds and strategies on the same items, [n_items]"
        )
    if next(iter(shapes)) == (0,):
        raise Mt2stError("item arrays are empty; evaluate on at least one item")
    return arrays


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise Mt2stError(f"values over seeds are {list(values)!r:.80}; at least one is needed and all must be finite")
    return array


def _value(items: Sequence[np.ndarray], statistic: Statistic) -> float:
    if statistic == "mean":
        return float(items[0].mean(dtype=np.float64))
    return float(np.median(items[0])) if statistic == "median" else float(_call(statistic, items))


def _call(statistic: Any, items: Sequence[np.ndarray]) -> float:
    if not callable(statistic):
        raise Mt2stError(f"statistic = {statistic!r} must be 'mean', 'median' or a function of the item arrays")
    return statistic(*items)


def _item_resamples(
    seeds: list[list[np.ndarray]], statistic: Statistic, resamples: int, random_seed: int
) -> np.ndarray:
    """The statistic of every seed on R resamples of the items, the same items for all seeds: [R, S]."""
    check_range("resamples", resamples, 2, 10_000_000)
    count = len(seeds[0][0])
    first = np.stack([items[0] for items in seeds]).astype(np.float64)  # [S, N]
    if statistic == "mean":
        # A mean over drawn items is a product with how often each was drawn: one small matrix product for all
        # resamples.
        return (
            np.concatenate(
                [times.astype(np.float64) @ first.T for times in _times_drawn(count, resamples, random_seed)]
            )
            / count
        )
    out = np.empty((resamples, len(seeds)))
    row = 0
    for picked in _draws(count, resamples, random_seed):
        for chosen in picked:
            if statistic == "median":
                out[row] = np.median(first[:, chosen], axis=1)
            else:
                out[row] = [_call(statistic, [array[chosen] for array in items]) for items in seeds]
            row += 1
    return out


def _draws(count: int, resamples: int, random_seed: int) -> Iterator[np.ndarray]:
    """Which items each resample draws, in chunks [r, N]; the chunks' size does not change the draws."""
    random = np.random.default_rng([random_seed, 1])
    rows = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, rows):
        yield random.integers(0, count, size=(min(rows, resamples - start), count))


def _times_drawn(count: int, resamples: int, random_seed: int) -> Iterable[np.ndarray]:
    """How often each resample draws each item, in chunks [r, N].

    Kept for the next call, which is mostly about the same items.
    """
    if count * resamples <= _CACHE_CELLS:
        return _kept_times(count, resamples, random_seed)
    return _count_draws(count, resamples, random_seed)


def _count_draws(count: int, resamples: int, random_seed: int) -> Iterator[np.ndarray]:
    for picked in _draws(count, resamples, random_seed):
        offsets = np.arange(len(picked))[:, None] * count
        times = np.bincount((picked + offsets).ravel(), minlength=picked.size)
        # An item is rarely drawn more than ten times, so a byte holds its count.
        yield times.astype(np.min_scalar_type(times.max())).reshape(picked.shape)


@lru_cache(maxsize=8)
def _kept_times(count: int, resamples: int, random_seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_count_draws(count, resamples, random_seed))


def _interval(
    point: np.ndarray, resampled: np.ndarray, items: int, method: Method, confidence: float, random_seed: int
) -> Interval:
    """From the statistic by seed, `point` [S], and its item resamples [R, S], to an interval over seeds × items."""
    check_range("confidence", confidence, 0.0, 1.0, "0.95 is a 95 % interval")
    count = len(point)
    estimate = float(point.mean())
    over = "seeds × items" if count > 1 else "items"
    if count > 1:
        draws = np.random.default_rng([random_seed, 2])
        chosen = draws.integers(0, count, size=(len(resampled), count - 1))  # [R, S−1]
        combined = np.take_along_axis(resampled, chosen, axis=1).mean(axis=1)  # [R]
    else:
        combined = resampled[:, 0]
    if method == "percentile":
        low, high = np.quantile(combined, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(estimate, float(low), float(high), count, over)
    if method != "student":
        raise Mt2stError(f"method = {method!r} must be 'student' or 'percentile'")
    half = _student_half_width(float(combined.var()), point, items, confidence)
    return Interval(estimate, estimate - half, estimate + half, count, over)


def _student_half_width(variance: float, point: np.ndarray, items: int, confidence: float) -> float:
    """√(t²_{S−1}·V_seeds + t²_{N−1}·V_items), with V_seeds = s²/S and V_items the rest of the bootstrap variance.

    Each part gets the quantile of its own degrees of freedom (Graybill and Wang's way with sums of variances): t_{S−1}
    alone would be twice too wide where items dominate, and Satterthwaite's pooled degrees of freedom covered 90 % where
    seeds do.
    """
    count = len(point)
    of_seeds = min(float(point.var(ddof=1)) / count, variance) if count > 1 else 0.0
    of_items = variance - of_seeds
    seed_quantile = float(stats.t.ppf((1 + confidence) / 2, count - 1)) if count > 1 else 0.0
    item_quantile = float(stats.t.ppf((1 + confidence) / 2, max(items - 1, 1)))
    return math.sqrt(seed_quantile**2 * of_seeds + item_quantile**2 * of_items)
