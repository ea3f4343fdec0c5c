"""Calibration error and the registry of metric definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt2st.errors import Mt2stError
from mt2st.metrics import METRICS, expected_calibration_error, metric_definition


def slow_error(confidence: list[float], correct: list[float], bins: int) -> float:
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [(p, c) for p, c in zip(confidence, correct) if low < p <= high or (number == 0 and p == 0)]
        if inside:
            mean_p = sum(p for p, _ in inside) / len(inside)
            mean_c = sum(c for _, c in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(mean_c - mean_p)
    return total


def test_by_hand() -> None:
    # Bin 15 holds two answers at 1.0, one right: gap 0.5, share 2/3. Bin 5 (0.267 to 0.333] holds one at 0.3, wrong:
    # gap 0.3.
    assert expected_calibration_error([1.0, 1.0, 0.3], [True, False, False]) == pytest.approx(2 / 3 * 0.5 + 1 / 3 * 0.3)


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=60), st.sampled_from([1, 7, 15]))
def test_equals_the_slow_twin(items: list[tuple[int, bool]], bins: int) -> None:
    # A bin's edge divided two ways may round apart; the offset keeps confidences off the edges.
    confidence = [0.0 if p == 0 else min(1.0, p / 1000 + 1e-7) for p, _ in items]
    correct = [float(c) for _, c in items]
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(
        slow_error(confidence, correct, bins), abs=1e-9
    )


@pytest.mark.parametrize(
    ("confidence", "correct", "bins"),
    [
        ([], [], 15),
        ([0.5], [1, 0], 15),
        ([1.5], [1], 15),
        ([np.nan], [1], 15),
        ([0.5], [2], 15),
        ([0.5], [1], 0),
        ([[0.5]], [[1]], 15),
    ],
)
def test_calibration_bad_input(confidence: list, correct: list, bins: int) -> None:
    with pytest.raises(Mt2stError, match="expected_calibration_error"):
        expected_calibration_error(confidence, correct, bins)


def test_every_definition_is_complete() -> None:
    for name, metric in METRICS.items():
        assert name == metric.id
        assert len(metric.definition.split()) > 4
        assert metric.unit
        assert metric.is_better(metric.best, metric.worst)
        assert (metric.symbol == "%") == (metric.scale == 100), name
        assert metric.scale == 1 or (metric.worst, metric.best) == (0, 1), "per cent of a share only"
        assert not metric.definition.endswith("."), "it stands within a line"
        assert "  " not in metric.definition
        assert not metric.is_better(metric.worst, metric.worst)


@pytest.mark.parametrize(
    ("metric_id", "base"),
    [
        ("text_to_image/hit_rate@5", "hit_rate@k"),
        ("ann_recall_tolerant@10", "ann_recall_tolerant@k"),
        ("image_to_text/median_rank", "median_rank"),
        ("hit_rate@k", "hit_rate@k"),
    ],
)
def test_ids_with_place_and_cutoff(metric_id: str, base: str) -> None:
    assert metric_definition(metric_id).id == base


@pytest.mark.parametrize("metric_id", ["hitrate@5", "mrr@5", "hit_rate", "hit_rate@0", "hit_rate@-1", "hit_rate@x"])
def test_unknown_ids(metric_id: str) -> None:
    with pytest.raises(Mt2stError, match=r"hit_rate|mrr"):
        metric_definition(metric_id)


def test_nan_is_never_better() -> None:
    metric = METRICS["mrr"]
    assert metric.is_better(0.0, math.nan)
    assert not metric.is_better(math.nan, 0.0)
    assert not metric.is_better(math.nan, math.nan)
