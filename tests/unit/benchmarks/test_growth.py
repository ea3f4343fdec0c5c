"""Curves of cost against size: exponents, and small points of each curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import growth, growth_worker
from benchmarks.speed.options import GrowthOptions
from mt2st.errors import Mt2stError


def points(power: float, work: float) -> list[dict[str, Any]]:
    sizes = (1, 10, 100, 1000)
    return [
        {"size": size, "processor_seconds": 0.5 * size**power, "peak_bytes": 1e6, "work": size**work} for size in sizes
    ]


def test_what_grows_faster_than_its_work_is_missed() -> None:
    assert growth.exponent(points(1.5, 1.0), "processor_seconds") == pytest.approx(1.5)
    square, _, ends = growth.curve_lines("report", points(2.0, 1.0))
    assert square.met is False
    assert square.value == "2.00, 1.00"
    assert ends.value == "500 … 5e+08; 1 … 1"
    assert growth.curve_lines("image", points(2.0, 2.0))[0].met is True


def test_fixed_costs_are_looked_past() -> None:
    rows = points(1.0, 1.0)
    rows[0]["processor_seconds"] = 7.0  # a small size takes as long as it takes to begin
    assert growth.exponent(rows, "processor_seconds") == pytest.approx(1.0)


def test_a_curve_is_measured_round_by_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def answer(module: str, task: str, arguments: dict[str, Any]) -> dict[str, float]:
        asked.append(arguments["auxiliaries"])
        seconds = arguments["auxiliaries"] * (1.0 + len(asked) / 100)
        size = float(arguments["auxiliaries"])
        return {"work": size, "seconds": seconds, "processor_seconds": seconds, "peak_bytes": 1.0}

    monkeypatch.setattr(growth, "in_process", answer)
    options = GrowthOptions(curves=("auxiliaries",), largest=0.5, repetitions=2, results=tmp_path)
    assert growth.measure(options) == 0
    assert asked == [1, 2, 4, 1, 2, 4]
    (path,) = (tmp_path / "growth").glob("*/run.json")
    found = json.loads(path.read_text())["measurements"]["auxiliaries"]
    assert [row["size"] for row in found] == [1, 2, 4]
    assert found[0]["seconds"] == pytest.approx(1.01)
    assert path.with_name("growth.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Mt2stError, match=r"leaves 1 sizes of report"):
        growth.measured("report", GrowthOptions(largest=0.02))
    with pytest.raises(Mt2stError, match="did you mean 'report'"):
        GrowthOptions(curves=("reports",))


def test_small_points() -> None:
    one, two = (growth_worker.step(images=2, image_size=16, auxiliaries=count) for count in (1, 2))
    assert 1 < two["work"] / one["work"] < 2  # both read the same image tokens
    assert growth_worker.report(runs=10)["work"] == 10
    assert growth_worker.prepare(images=20)["processor_seconds"] > 0
