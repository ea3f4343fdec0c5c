"""Cards of datasets that have no adapter to bring one: from what the user wrote down, and from the mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mt2st.data.card import DatasetCard
from mt2st.errors import Mt2stError


def card_of(
    name: str, mapping: Mapping[str, str], splits: Mapping[str, int | None], facts: Mapping[str, Any]
) -> DatasetCard:
    """A card from what the user wrote down (`facts`) and what the mapping tells.

    Raises:
        Mt2stError: a fact that is no text, or none that a card can hold.
    """
    plain = re.sub(r"[^a-z0-9_.-]+", "_", name.lower()).strip("_.-") or "data"
    task = "retrieval"
    if "question" in mapping:
        task = "vqa"
    elif "label" in mapping and "captions" not in mapping:
        task = "classification"
    metric = {"vqa": "vqa_accuracy", "retrieval": "hit_rate@1"}
    values: dict[str, Any] = {
        "name": plain,
        "title": name,
        "task": task,
        "source": "local files",
        "revision": "unpinned",
        "licence": "unknown",
        **facts,
    }
    values.setdefault("main_metric", metric.get(str(values["task"]), "accuracy"))
    for key, value in values.items():
        if not isinstance(value, str):
            raise Mt2stError(f"card field {key!r} is {value!r}; write a text")
    return DatasetCard(splits={_split_name(split): count for split, count in splits.items()}, **values)


def _split_name(name: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "_", name.lower()).strip("_.-") or "train"
