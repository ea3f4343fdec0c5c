"""Milvus beside its own client: the ratio, and a small run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed.peers_milvus import main, overheads
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json


def test_overheads_are_medians_over_pairs() -> None:
    seconds = {"ours": [1.1, 2.1, 30.0], "direct": [1.0, 2.0, 3.0], "control": [1.0, 2.2, 2.7]}
    ours, control = overheads(seconds)
    assert ours == pytest.approx(0.1)
    assert control == pytest.approx(0.0)


def test_bad_options_are_one_line() -> None:
    with pytest.raises(Mt2stError, match="--pairs = 0"):
        main(["--pairs", "0"])


def test_a_small_run(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    pytest.importorskip("pymilvus")
    assert main(["--smoke", "--kind", "FLAT", "--width", "8", "--batches", "3", "--results", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "peers" / "milvus").iterdir()
    record = read_sealed_json(folder / "run.json", "")
    assert {len(times) for times in record["measurements"]["batch 3"].values()} == {4}
    assert len(record["lines"]) == 3
