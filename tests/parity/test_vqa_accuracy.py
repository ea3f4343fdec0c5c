"""VQA accuracy against 3,016 cases scored by the official code, both official protocols."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mt2st.data.card import Answer
from mt2st.metrics import vqa_accuracy

GOLDEN = Path(__file__).parent / "data" / "vqa_accuracy.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("protocol", ["official-2021", "official-2016"])
def test_golden_rows(protocol: str) -> None:
    assert len(ROWS) == 3016
    key = protocol.replace("-", "_")
    wrong = [row for row in ROWS if abs(vqa_accuracy(row["prediction"], row["answers"], protocol) - row[key]) > 1e-6]
    assert not wrong, f"{len(wrong)} rows differ, the first: {wrong[0]}"


def test_records_and_texts_score_alike() -> None:
    for row in ROWS[::17]:
        records = [Answer(text, annotator=str(number)) for number, text in enumerate(row["answers"])]
        assert vqa_accuracy(row["prediction"], records) == vqa_accuracy(row["prediction"], row["answers"])


def test_protocols_differ_where_the_golden_rows_say_so() -> None:
    """The file tells the protocols apart: a function that ignored `protocol` would fail on hundreds of rows."""
    assert sum(row["official_2021"] != row["official_2016"] for row in ROWS) > 100
    assert sum(vqa_accuracy(row["prediction"], row["answers"], "always") != row["official_2021"] for row in ROWS) > 100
