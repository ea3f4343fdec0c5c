"""Runs that learned nothing are marked, healthy ones are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.suite.health import signs_of_failure

HEALTHY = {"prediction": np.array([0, 1, 1]), "score": np.array([1.0, 0.0, 1.0])}


def lines(*losses: float) -> list[dict[str, Any]]:
    logged = [{"event": "train", "step": 20 * (at + 1), "loss/kind": loss} for at, loss in enumerate(losses)]
    return [*logged, {"event": "validation", "step": 99, "accuracy": 0.5}]


@pytest.mark.parametrize("metrics", [[], lines(2.0), lines(2.0, 3.0, 1.9), lines(2.0, 2.0)])
def test_a_healthy_run_has_no_sign(metrics: list[dict[str, Any]]) -> None:
    assert signs_of_failure(metrics, "kind", HEALTHY) == []


def test_predictions_of_one_class_are_named_unless_they_are_right() -> None:
    one = {"prediction": np.array([2, 2, 2]), "score": np.array([1.0, 0.0, 0.0])}
    (sign,) = signs_of_failure(lines(2.0, 1.0), "kind", one)
    assert sign.startswith("all 3 test predictions are one class; likely cure: a lower learning rate")
    assert signs_of_failure([], "kind", {**one, "score": np.ones(3)}) == []
    assert signs_of_failure([], "kind", {"text_to_image_rank": np.array([1, 2])}) == []


def test_a_loss_that_rose_is_named() -> None:
    (sign,) = signs_of_failure(lines(2.0, 1.0, 2.5), "kind", HEALTHY)
    assert sign.startswith("the loss of kind rose from 2 at step 20 to 2.5 at step 60; likely cure")
    assert signs_of_failure(lines(2.0, 2.5), "other", HEALTHY) == []
