"""Made-up but complete result folders, to drive the report's tests: five strategies, two views, planted differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records.folder import RunFolder

LEVEL = {"STL": 0.80, "MTL": 0.92, "Diminish": 0.88, "Switch": 0.93, "Sampled Diminish": 0.86}
COST = {
    "STL": 0.44,
    "MTL": 1.0,
    "Diminish": 0.8,
    "Switch": 0.62,
    "Sampled Diminish": 0.6,
}  # share of MTL's FLOPs at equal steps
MTL_FLOPS, STEPS, BUDGET_SHARE = 4.0e12, 800, 0.44
TYPES = ["shape", "colour", "yes/no"]


def write_run(
    root: Path,
    strategy: str,
    view: str,
    seed: int,
    *,
    items: int = 400,
    kind: str = "score",
    fail: str = "",
    knobs: Mapping[str, Any] | None = None,
    **change: Any,
) -> RunFolder:
    """One finished (or failed) run; `knobs` go into its configuration, `change` replaces fields of its record."""
    random = np.random.default_rng([seed, sorted(LEVEL).index(strategy), view == "equal-steps"])
    share = COST[strategy] if view == "equal-steps" else BUDGET_SHARE
    steps = STEPS if view == "equal-steps" else round(STEPS * BUDGET_SHARE / COST[strategy])
    level = (
        LEVEL[strategy]
        - (0.03 if view == "equal-budget" and strategy == "MTL" else 0.0)
        + 0.01 * random.standard_normal()
    )
    shared = {"width": 64, "steps": STEPS}
    config = {**shared, "strategy": {}, "t": steps} | ({"knobs": knobs} if knobs else {})
    folder = RunFolder.of(
        *(root, "demo", "default"),
        strategy=strategy,
        view=view,
        seed=seed,
        config=config,
        suite=shared,
    )
    difficulty = np.random.default_rng(7).random(items)
    right = difficulty < level
    ranks = np.where(right, 1 + (difficulty * 4).astype(np.int64), 20 + (difficulty * 40).astype(np.int64))
    arrays = {
        "score": right.astype(np.float32),
        "text_to_image_rank": ranks,
        "loss": (1.0 - level + 0.1 * random.standard_normal(items)).astype(np.float32),
    }
    flops = share * MTL_FLOPS
    curve = [
        {
            "step": steps * part // 10,
            "flops": flops * part / 10,
            "seconds": 6.0 * part,
            "accuracy": level * (1 - 0.6 ** (part + 1)),
        }
        for part in range(1, 11)
    ]
    record: dict[str, Any] = {
        "views": [view],
        "started_utc": f"2026-01-01T00:00:{seed:02d}+00:00",
        "steps": steps,
        "samples": steps * 64,
        "phases_seconds": {"train": 60.0 + seed, "evaluate": 2.0},
        "flops": {"total": flops, "by_task": {}},
        "auxiliary_share_of_mtl_flops": 1 - COST["STL"],
        "peak_memory_bytes": 700_000_000 + seed,
        "gpu_peak_memory_bytes": 0,
        "metrics": {
            "validation": {"accuracy": curve[-1]["accuracy"]},
            "test": {"accuracy": float(right.mean()), "ece": 0.05 + seed / 100},
        },
        "floors": {"language prior": {"accuracy": 0.67}, "chance": {"accuracy": 0.08}},
        "curve": curve,
        "group_names": {"question_type": TYPES},
        "commit": {"hash": "a" * 40, "dirty": False},
        "versions": {"torch": "2.14.1"},
        "hardware": {"cpu": "Test CPU", "threads": 2, "gpus": []},
        "data": {"name": "demo", "revision": "1", "content_hash": "c" * 64},
        "model": {"parameters": 231_000},
        **change,
    }
    with folder.lock():
        folder.begin()
        if fail:
            folder.fail(record, fail)
        else:
            folder.finish(record, {kind: arrays[kind], "question_type": np.arange(items) % 3})
    return folder


VIEWS = ("equal-steps", "equal-budget")


def write_suite(
    root: Path, *, seeds: int = 3, items: int = 400, kind: str = "score", views: tuple[str, ...] = VIEWS
) -> Path:
    """All strategies × seeds × views; returns `root`."""
    for strategy in LEVEL:
        for view in views:
            for seed in range(seeds):
                write_run(root, strategy, view, seed, items=items, kind=kind)
    return root
