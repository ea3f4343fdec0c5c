"""Pictures of a summary: small print does not lie on small print, and stays inside."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks.records.read import load_records
from benchmarks.report import plots
from benchmarks.report.figures import figure_of, style
from benchmarks.report.spec import ReportSpec, accuracy
from benchmarks.report.summary import summarise
from tests.helpers.synthetic_runs import LEVEL, write_suite

SPEC = ReportSpec("Demo", accuracy())


@pytest.mark.parametrize("strategies", [1, len(LEVEL)])
def test_names_of_floors_do_not_lie_on_one_another(tmp_path: Path, strategies: int) -> None:
    write_suite(tmp_path, seeds=2, items=50, views=("equal-steps",))
    records = load_records(tmp_path, "demo", "default")
    summary = summarise(records, SPEC, benchmark="demo", recipe="default", known=tuple(LEVEL))
    rows = summary.of_view("equal-steps")[:strategies]
    best = max(row.primary.estimate for row in rows if row.primary is not None)
    near = {f"a floor of a long name, number {number}": {"accuracy": best - 0.001 * number} for number in range(3)}
    far = {f"another one far away {number}": {"accuracy": 0.01} for number in range(6)}
    with style():
        figure = figure_of(11.0, max(3.4, 1.9 + 0.5 * len(rows)))
        left, _ = figure.subplots(1, 2)
        plots._intervals(left, replace(summary, floors={**near, **far}), rows, SPEC.primary)
        figure.canvas.draw()
        notes = [text for text in left.texts if "floor" in text.get_text() or "far away" in text.get_text()]
        boxes = [note.get_window_extent() for note in notes]
    assert len(boxes) >= 3 + 3
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    frame = left.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and frame.y0 <= box.y0 for box in boxes)
    assert frame.width > 0.3 * figure.bbox.width  # the sentence does not squeeze the axes
