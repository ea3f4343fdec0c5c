"""Simulated coverage of the intervals, with the variances and the clusters of the published records.

A study is S seeds × N items in C clusters: a level for each seed, one for each cluster, one for each cluster under
each seed, and noise of items, shared by the seeds and not. A resampled mean depends on the clusters' sums alone, so
these are drawn. `COMPONENTS` are standard deviations by the method of moments, in units of the metric, of a paired
difference of the published suites (Switch − MTL at the budget of 0.44); the clusters' sizes are those of the test
splits.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.report.resampling import Resampled
from benchmarks.report.statistics import interval_of

# case → (seeds, item shared by the seeds, item under a seed), clusters, mean size, share of the items' variance that is
# the cluster's. VQA: 9,673 questions on 1,000 pictures; retrieval: 778 pictures of 335 bases; others: no clusters.
COMPONENTS = {
    "vqa": ((0.0133, 0.045, 0.163), 1000, 9.67, 0.2),
    "retrieval": ((0.0112, 0.060, 0.181), 335, 2.3, 0.5),
    "text": ((0.0044, 0.083, 0.383), 11671, 1.0, 1.0),
    "image": ((0.0005, 0.120, 0.269), 360, 1.0, 1.0),
    "few clusters": ((0.0044, 0.300, 0.300), 30, 10.0, 0.3),
}


def study(random: np.random.Generator, case: str, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the items of each cluster under each seed, [C, S], and the clusters' sizes, [C]; the true mean is 0."""
    (of_seed, shared, own), count, size, within = COMPONENTS[case]
    sizes = 1.0 + random.poisson(size - 1.0, count)

    def clustered(spread: float, columns: int) -> np.ndarray:
        cluster = sizes[:, None] * spread * np.sqrt(within) * random.standard_normal((count, columns))
        items = np.sqrt(sizes)[:, None] * spread * np.sqrt(1 - within) * random.standard_normal((count, columns))
        return cluster + items

    levels = of_seed * random.standard_normal(seeds)
    return sizes[:, None] * levels + clustered(shared, 1) + clustered(own, seeds), sizes


def coverage(case: str, seeds: int, trials: int, resamples: int = 200) -> float:
    """Share of studies whose 95 % interval holds the truth; the draws of the clusters are the same for all studies."""
    random = np.random.default_rng(seeds)
    count = COMPONENTS[case][1]
    times = random.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    hits = 0
    for _ in range(trials):
        sums, sizes = study(random, case, seeds)
        found = Resampled(sums.sum(axis=0) / sizes.sum(), (times @ sums) / (times @ sizes)[:, None], count)
        interval = interval_of(found, clustered=True)
        hits += interval.low <= 0.0 <= interval.high
    return hits / trials


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("case", COMPONENTS)
def test_the_default_interval_covers_what_it_says(case: str, seeds: int) -> None:
    trials = 150 if case == "text" else 600
    noise = 2.5 * np.sqrt(0.05 * 0.95 / trials)
    assert 0.93 - noise < coverage(case, seeds, trials) < 0.97 + noise
