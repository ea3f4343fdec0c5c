"""Metric definitions, each with an id, a unit and a direction. Nothing here needs torch.

Names are imported when first used, so that the definitions can be read without numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt2st.metrics.calibration import expected_calibration_error
    from mt2st.metrics.registry import METRICS, MetricDefinition, metric_definition
    from mt2st.metrics.vqa import PROTOCOLS, normalise_answer, vqa_accuracy

_HOME = {
    "METRICS": "registry",
    "PROTOCOLS": "vqa",
    "MetricDefinition": "registry",
    "expected_calibration_error": "calibration",
    "metric_definition": "registry",
    "normalise_answer": "vqa",
    "vqa_accuracy": "vqa",
}
__all__ = [
    "METRICS",
    "PROTOCOLS",
    "MetricDefinition",
    "expected_calibration_error",
    "metric_definition",
    "normalise_answer",
    "vqa_accuracy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mt2st.metrics' has no attribute {name!r}")
    return getattr(import_module(f"mt2st.metrics.{_HOME[name]}"), name)
