"""`python -m benchmarks shards`: the part is searched as one index, and the whole follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.commands.shards import main
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json


def test_the_whole_follows_from_the_part(tmp_path: Path) -> None:
    sizes = ["--items", "30000", "--queries", "3000", "--width", "4", "--part-items", "10000", "--part-queries", "1500"]
    places = ["--scratch", str(tmp_path), "--results", str(tmp_path / "results")]
    assert main([*sizes, *places, "--shards", "2", "--workers", "1"]) == 0
    (folder,) = (tmp_path / "results" / "shards").iterdir()
    found = read_sealed_json(folder / "run.json", "")["measured"]
    assert found["same_as_one_index"] is True
    assert found["share_of_the_whole"] == pytest.approx(1 / 6)
    assert found["whole_seconds"] == pytest.approx(6 * found["seconds"])
    assert found["whole_file_bytes"] == 4 * 4 * 33_000
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_part_is_no_larger_than_the_whole() -> None:
    with pytest.raises(Mt2stError, match="are parts of --items and --queries"):
        main(["--items", "10", "--part-items", "11"])
