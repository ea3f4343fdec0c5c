"""The numbers of docs/search.md are those of the records that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mt2st.files import read_sealed_json

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("number", "name"), [(0, "clustered-100000x128"), (1, "million-1000000x128")])
def test_a_table_is_its_record(number: int, name: str) -> None:
    record = read_sealed_json(ROOT / "results/published/index" / name / "run.json", "")
    expected = {}
    for row in record["settings"]:
        cost = row["cost"]
        cells = (f"{row['quality']['ann_recall@10']:.3f}", f"{cost['batch_queries_per_second']:,.0f}")
        cells += (f"{1e3 * cost['single_p50_seconds']:.2f}", f"{cost['build_seconds']:.1f}")
        expected[row["label"]] = (*cells, f"{cost['index_bytes'] / 1e6:.1f}")
    text = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    table = text.split("| setting | recall@10")[number + 1].split("\n\n")[0].splitlines()[2:]
    shown = {cells[0]: tuple(cells[1:]) for cells in (re.findall(r"[^|]+", line.replace(" ", "\0")) for line in table)}
    shown = {
        name.replace("\0", " ").strip(): tuple(cell.replace("\0", "") for cell in row) for name, row in shown.items()
    }
    assert len(shown) >= 7
    for setting, row in shown.items():
        assert row == expected[setting], setting
