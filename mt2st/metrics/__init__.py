"""Metric definitions, each with an id, a unit and a direction. Nothing here needs torch."""

from __future__ import annotations

from mt2st.metrics.calibration import expected_calibration_error
from mt2st.metrics.registry import METRICS, MetricDefinition, metric_definition
from mt2st.metrics.vqa import PROTOCOLS, normalise_answer, vqa_accuracy

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "MetricDefinition",
    "expected_calibration_error",
    "metric_definition",
    "normalise_answer",
    "vqa_accuracy",
]
