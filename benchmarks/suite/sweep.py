"""A sweep's parts: every setting of every strategy at every budget. `report/sweep.py` shows what came out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.cases.shared.suite_knobs import EQUAL_BUDGET, SuiteKnobs


def swept(knobs: SuiteKnobs) -> list[Any]:
    """The knobs of a sweep's parts."""
    parts = []
    for share in knobs.sweep_budgets:
        for name, kind in zip(knobs.strategies, knobs.kinds(), strict=True):
            variants = kind.variants(knobs.strategy(kind.name))
            if knobs.sweep_middle:
                variants = (variants[len(variants) // 2],)
            for settings in variants:
                part = replace(knobs, strategies=(name,), views=(EQUAL_BUDGET,), budget_share=share)
                parts.append(part.with_settings(settings))
    return parts
