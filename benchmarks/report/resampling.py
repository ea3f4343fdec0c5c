"""Resamples of the test items: which items are drawn, and what a statistic says of them, seed by seed.

Items come in *clusters*: questions on one picture, pictures of one base. What is drawn with replacement is the cluster,
with all its items; an item without a cluster of its own is one (cluster bootstrap; Cameron, Gelbach and Miller 2008).
Every seed, and every strategy that is compared, gets the same draws.

Shape legend: S seeds (or columns of any kind), N items, C clusters, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from mt2st.errors import Mt2stError, check_range

Statistic = Literal["mean", "median"] | Callable[..., float]
Items = Sequence[np.ndarray]  # the item arrays of one seed, each [N]

RESAMPLES = 2_000
_CHUNK_CELLS = 2_000_000  # draws held at once: 16 MB of int64, whatever C and R are
# Draw counts kept between calls: at most 25 MB for each of eight numbers of clusters (groups differ).
_CACHE_CELLS = 25_000_000
_NEARBY = 8  # distinct values on each side of the median of all items among which medians of resamples are looked for


@dataclass(frozen=True)
class Resampled:
    """A statistic on all items and on resamples of them.

    Attributes:
        point: on all items, [S].
        values: on each resample, [R, S]; equal rows are equal draws.
        clusters: C, how many were drawn from.
    """

    point: np.ndarray
    values: np.ndarray
    clusters: int

    def pick(self, columns: Sequence[int]) -> Resampled:
        """These columns."""
        chosen = list(columns)
        return Resampled(self.point[chosen], self.values[:, chosen], self.clusters)

    def minus(self, other: Resampled) -> Resampled:
        """Column by column, on the same resamples."""
        return Resampled(self.point - other.point, self.values - other.values, self.clusters)


def resample(
    seeds: Sequence[Items],
    statistic: Statistic = "mean",
    clusters: np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    random_seed: int = 0,
) -> Resampled:
    """The statistic of every seed, on all items and on R resamples of their clusters.

    Args:
        seeds: for each seed its item arrays, each [N]; "mean" and "median" use the first array.
        statistic: "mean", "median", or a function of the item arrays [N] → float.
        clusters: cluster of each item, [N] integers; None = every item is one.
        random_seed: fixes the resamples; equal input, equal output.

    Raises:
        Mt2stError: no seeds, no items, seeds with different numbers of items, or clusters of another number of items.
    """
    check_range("resamples", resamples, 2, 10_000_000)
    arrays = _checked(seeds)
    items = len(arrays[0][0])
    point = np.array([_value(each, statistic) for each in arrays])
    if clusters is None:
        return Resampled(point, _by_item(arrays, statistic, resamples, random_seed), items)
    members = _members(clusters, items)
    count = int(members.max()) + 1
    if count < 2:
        raise Mt2stError("all items are in one cluster; nothing says how clusters vary. Leave `cluster` out")
    return Resampled(point, _by_cluster(arrays, statistic, members, count, resamples, random_seed), count)


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


def _members(clusters: np.ndarray, items: int) -> np.ndarray:
    """Clusters numbered 0 … C − 1, [N]."""
    if clusters.shape != (items,):
        raise Mt2stError(f"clusters have shape {clusters.shape}, the item arrays ({items},); give one for each item")
    return np.unique(clusters, return_inverse=True)[1]


def _value(items: Sequence[np.ndarray], statistic: Statistic) -> float:
    if statistic == "mean":
        return float(items[0].mean(dtype=np.float64))
    return float(np.median(items[0])) if statistic == "median" else float(_call(statistic, items))


def _call(statistic: Any, items: Sequence[np.ndarray]) -> float:
    if not callable(statistic):
        raise Mt2stError(f"statistic = {statistic!r} must be 'mean', 'median' or a function of the item arrays")
    return statistic(*items)


def _by_item(seeds: list[list[np.ndarray]], statistic: Statistic, resamples: int, random_seed: int) -> np.ndarray:
    """The statistic of every seed on R resamples of the items: [R, S]."""
    count = len(seeds[0][0])
    first = np.stack([items[0] for items in seeds]).astype(np.float64)  # [S, N]
    if statistic == "mean":
        # A mean over drawn items is a product with how often each was drawn: one small matrix product for all
        # resamples.
        drawn = _times_drawn(count, resamples, random_seed)
        return np.concatenate([times.astype(np.float64) @ first.T for times in drawn]) / count
    if statistic == "median":
        return _medians(first, np.arange(count), _times_drawn(count, resamples, random_seed))
    picked = (chosen for chunk in _draws(count, resamples, random_seed) for chosen in chunk)
    return np.array([_on(chosen, seeds, statistic) for chosen in picked])


def _by_cluster(
    seeds: list[list[np.ndarray]], statistic: Statistic, members: np.ndarray, count: int, resamples: int, seed: int
) -> np.ndarray:
    """The statistic of every seed on R resamples of `count` clusters, `members` [N]: [R, S]."""
    first = np.stack([items[0] for items in seeds]).astype(np.float64)  # [S, N]
    drawn = _times_drawn(count, resamples, seed)
    if statistic == "mean":  # of as many items as the drawn clusters have
        sums = np.stack([np.bincount(members, weights=row, minlength=count) for row in first])  # [S, C]
        sizes = np.bincount(members, minlength=count).astype(np.float64)
        chunks = [times.astype(np.float64) for times in drawn]
        return np.concatenate([(times @ sums.T) / (times @ sizes)[:, None] for times in chunks])
    if statistic == "median":
        return _medians(first, members, drawn)
    places = np.arange(len(members))
    rows = (np.repeat(places, row[members]) for times in drawn for row in times)
    return np.array([_on(chosen, seeds, statistic) for chosen in rows])


def _medians(first: np.ndarray, members: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    """The median of every seed's values `first` [S, N] on each resample of the clusters `members` [N]: [R, S].

    How many drawn items have a value of at most v is a product with how often each cluster was drawn. Medians of
    resamples lie near the median of all, so v runs over the values around it alone, and over more where those do not
    hold a median.
    """
    sizes = np.bincount(members).astype(np.float64)  # [C]
    columns = [_Near(row, members, len(sizes)) for row in first]
    found = []
    for times in drawn:
        chunk = times.astype(np.float64)  # [r, C]
        items = chunk @ sizes
        low, high = np.floor((items - 1) / 2), np.floor(items / 2)  # places of the two middle items, from 0
        found.append(np.stack([column.medians(chunk, low, high) for column in columns], axis=1))
    return np.concatenate(found)


class _Near:
    """One seed's values [N], and for those around their median how many items of each cluster are at most as large."""

    def __init__(self, row: np.ndarray, members: np.ndarray, clusters: int) -> None:
        self._row, self._members, self._clusters = row, members, clusters
        self._values = np.unique(row)
        self._middle = int(np.searchsorted(self._values, np.median(row)))
        self._look(_NEARBY)

    def _look(self, reach: int) -> None:
        self._reach = reach
        self._near = self._values[max(0, self._middle - reach) : self._middle + reach + 1]  # [V]
        self._below = self._count(self._row < self._near[0])  # [C]
        self._at_most = np.stack([self._count(self._row <= value) for value in self._near], axis=1)  # [C, V]

    def _count(self, flags: np.ndarray) -> np.ndarray:
        return np.bincount(self._members, weights=flags, minlength=self._clusters)

    def medians(self, times: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The median on each resample, which draws clusters `times` [r, C]; its middle items are `low` and `high`."""
        while True:
            counts = times @ self._at_most  # [r, V]
            if (times @ self._below <= low).all() and (counts[:, -1] > high).all():
                one, other = (self._near[(counts <= place[:, None]).sum(1)] for place in (low, high))
                middle: np.ndarray = (one + other) / 2
                return middle
            self._look(4 * self._reach)


def _on(chosen: np.ndarray, seeds: list[list[np.ndarray]], statistic: Statistic) -> list[float]:
    """The statistic of every seed on the chosen items: [S]."""
    return [_call(statistic, [array[chosen] for array in items]) for items in seeds]


def _draws(count: int, resamples: int, random_seed: int) -> Iterator[np.ndarray]:
    """Which of `count` each resample draws, in chunks [r, count]; the chunks' size does not change the draws."""
    random = np.random.default_rng([random_seed, 1])
    rows = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, rows):
        yield random.integers(0, count, size=(min(rows, resamples - start), count))


def _times_drawn(count: int, resamples: int, random_seed: int) -> Iterable[np.ndarray]:
    """How often each resample draws each, in chunks [r, count].

    Kept for the next call, which is mostly about the same items.
    """
    if count * resamples <= _CACHE_CELLS:
        return _kept_times(count, resamples, random_seed)
    return _count_draws(count, resamples, random_seed)


def _count_draws(count: int, resamples: int, random_seed: int) -> Iterator[np.ndarray]:
    for picked in _draws(count, resamples, random_seed):
        offsets = np.arange(len(picked))[:, None] * count
        times = np.bincount((picked + offsets).ravel(), minlength=picked.size)
        # One is rarely drawn more than ten times, so a byte holds its count.
        yield times.astype(np.min_scalar_type(times.max())).reshape(picked.shape)


@lru_cache(maxsize=8)
def _kept_times(count: int, resamples: int, random_seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_count_draws(count, resamples, random_seed))
