"""The table of evaluated pairs, from their records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report.text_table import NOTHING, TextTable

_METRICS = (
    *((f"text_to_image/hit_rate@{k}", f"T→I hit@{k} %", 100.0) for k in (1, 5, 10)),
    ("text_to_image/mrr", "T→I MRR", 1.0),
    *((f"image_to_text/hit_rate@{k}", f"I→T hit@{k} %", 100.0) for k in (1, 5, 10)),
    ("zero_shot/accuracy@1", "zero-shot top-1 %", 100.0),
    ("zero_shot/accuracy@5", "top-5 %", 100.0),
    ("zero_shot/mean_class_accuracy", "mean per class %", 100.0),
    ("linear_probe/accuracy", "linear probe %", 100.0),
    ("nearest_neighbours/accuracy", "k-NN %", 100.0),
    *((f"vqa_accuracy/{name}", f"VQA {name} %", 100.0) for name in ("official-2021", "official-2016", "always")),
)


def evaluation_table(records: Sequence[Mapping[str, Any]], failed: Sequence[str]) -> TextTable:
    """One line a pair of model and data: its scores, then what it cost. Pairs that failed follow, without numbers.

    Args:
        records: of finished pairs.
        failed: names of the others.
    """
    columns = [column for column in _METRICS if any(column[0] in record["metrics"] for record in records)]
    kinds = [kind for kind in ("images", "texts", "answers") if any(kind in record["costs"] for record in records)]
    head = ["model on data", *(label for _, label, _ in columns)]
    for kind in kinds:
        head += [f"GFLOPs/{kind[:-1]}", f"{kind}/s"]
    head += ["peak MB"]
    body = []
    for record in records:
        cells = [f"{record['model']['spec']} on {record['data']['name']}/{record['data']['split']}"]
        cells += [_cell(record["metrics"].get(name), scale) for name, _, scale in columns]
        for kind in kinds:
            cells += _speed(record["costs"].get(kind))
        peak = record["gpu_peak_memory_bytes"] or record["peak_memory_bytes"]
        body.append((*cells, f"{peak / 1e6:,.0f}"))
    body += [(f"{pair}: failed", *[NOTHING] * (len(head) - 1)) for pair in failed]
    caption = (
        "hit@k: the share of queries with a relevant item among the first k (the CLIP papers' R@k), ties count against "
        "the model; FLOPs: forward, 1 multiply-add = 2; images/s: with decoding; texts/s: distinct texts; peak: of the "
        "GPU where one was used, else resident"
    )
    faint = frozenset(range(len(records), len(body)))
    return TextTable("Evaluation without training", tuple(head), tuple(body), caption, 1 + len(columns), faint)


def _speed(cost: Mapping[str, float] | None) -> list[str]:
    if cost is None:
        return [NOTHING, NOTHING]
    return [f"{cost['flops_per_item'] / 1e9:.3g}", f"{cost['items_per_second']:,.1f}"]


def _cell(value: float | None, scale: float) -> str:
    if value is None:
        return NOTHING
    return f"{scale * value:.1f}" if scale == 100 else f"{scale * value:.3f}"
