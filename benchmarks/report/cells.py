"""Numbers of a report as texts: intervals, differences, FLOPs, and the definitions of metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.report.spec import Metric
from benchmarks.report.student import Interval
from benchmarks.report.text_table import NOTHING

_UNITS = ((1e15, "PFLOPs"), (1e11, "TFLOPs"), (0.0, "GFLOPs"))  # from which value on
_UNIT_SIZE = {"PFLOPs": 1e15, "TFLOPs": 1e12, "GFLOPs": 1e9}


def interval_text(interval: Interval | None, metric: Metric) -> str:
    """ "97.9 ± 1.5"; the number alone where there is no interval."""
    if interval is None:
        return NOTHING
    half = interval.half_width
    return metric.text(interval.estimate) if half != half else f"{metric.text(interval.estimate)} ± {metric.text(half)}"


def difference_text(interval: Interval | None, metric: Metric) -> str:
    """ "+0.8 [-0.3, +1.9]"."""
    if interval is None:
        return NOTHING
    estimate = metric.text(interval.estimate, signed=True)
    if interval.low != interval.low:
        return estimate
    return f"{estimate} [{metric.text(interval.low, signed=True)}, {metric.text(interval.high, signed=True)}]"


def share_text(share: float | None) -> str:
    """ "56%"."""
    return NOTHING if share is None else f"{share:.0%}"


def flops_unit(values: Sequence[float | None]) -> str:
    """The unit that suits the largest of the values."""
    largest = max((value for value in values if value is not None), default=0.0)
    return next(unit for limit, unit in _UNITS if largest >= limit)


def in_unit(value: float, unit: str) -> float:
    """FLOPs in `unit` ("GFLOPs", "TFLOPs", "PFLOPs")."""
    return value / _UNIT_SIZE[unit]


def flops_text(value: float | None, unit: str) -> str:
    """Three digits: "1.23", "123"."""
    if value is None:
        return NOTHING
    number = in_unit(value, unit)
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def metric_lines(metrics: Sequence[Metric]) -> list[str]:
    """One line for each definition behind the metrics: id, columns, sentence, unit, direction, range and source."""
    by_definition: dict[tuple[str, str], list[Metric]] = {}
    for metric in metrics:
        known = metric.registered
        by_definition.setdefault((known.id if known else metric.id, metric.definition), []).append(metric)
    lines = []
    for (name, definition), columns in by_definition.items():
        known = columns[0].registered
        # A column whose id is more than the definition's says which it is.
        labels = ", ".join(
            column.label + (f" = {column.id}" if column.id != name else "")
            for column in columns
            if column.label != name
        )
        direction = "higher" if columns[0].higher_is_better else "lower"
        line = f"{name}{f' ({labels})' if labels else ''}: {definition}; {direction} is better"
        if known is not None:
            line += f"; unit: {known.unit}, from {_end(known.worst)} (worst) to {_end(known.best)} (best)"
            line += f"; source: {known.source}" if known.source else ""
        lines.append(line + ".")
    return lines


def _end(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:g}"
