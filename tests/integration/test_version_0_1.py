"""What version 0.1 wrote is read, or refused in one line that says the cure.

tests/helpers/version_0_1 holds a run folder of a published suite of 0.1 (image, 360 test pictures), a prepared data set
and an index, all written by 0.1 itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.records.check import RECORD_FILE
from benchmarks.records.folder import RunFolder
from benchmarks.records.read import load_records
from mt2st.dataset import PreparedDataset
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json, write_sealed_json
from mt2st.index import load_index
from mt2st.index._store import manifest_path

OLD = Path(__file__).parents[1] / "helpers" / "version_0_1"
RUN = "stl-equal-budget-s0-b71015e3"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_a_run_folder_is_read_with_its_arrays(old: Path) -> None:
    (run,) = load_records(old / "results", "image", "default").finished
    assert (run.strategy, run.seed, run.steps, run.training_flops) == ("STL", 0, 533, 70184484864)
    assert run.items["score"].mean() == pytest.approx(run.metric("accuracy"), abs=1e-7)
    assert RunFolder.existing(run.folder).state() == "finished"


def test_a_run_folder_is_reported_and_packed(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "image", "--results", str(old / "results")]) == 0
    assert "| STL | 1 | 84.7 ± 3.6 |" in (old / "results" / "image" / "default" / "TABLE.md").read_text()
    assert main(["publish", "image", "--results", str(old / "results"), "--out", str(old / "packed")]) == 0
    (run,) = load_records(old / "packed", "image", "default").finished
    assert run.values == read_sealed_json(old / "results" / "image" / "default" / RUN / RECORD_FILE, "")
    assert capsys.readouterr().err == ""


def test_an_unfinished_run_is_not_resumed_but_says_what_to_do(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = old / "results" / "image" / "default" / RUN
    (folder / RECORD_FILE).unlink()
    assert main(["resume", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "begun by version 0.1; such runs can be reported, not resumed; repeat the suite's command" in error


def test_prepared_data_are_read_to_the_last_file(old: Path) -> None:
    data = PreparedDataset.open(old / "prepared", verify="full")
    train = data.split("train")
    assert (train.num_images, train.num_captions, train.num_questions) == (2, 2, 2)
    assert train.pixels([0, 1])[:, 0, 0, 0].tolist() == [9, 10]
    assert (train.question_texts()[0], train.answer_texts()[0]) == ("is it dark?", ("yes",))


def test_an_index_is_read_and_finds_the_same(old: Path) -> None:
    index = load_index(old / "few.index", "data of version 0.1")
    scores, ids = index.search(np.array([[0.6, 0.8, 0.0]], np.float32), 2)
    assert ids.tolist() == [[3, 1]]
    assert scores[0] == pytest.approx([1.0, 0.8])


def changed(path: Path, **values: object) -> None:
    write_sealed_json(path, {**read_sealed_json(path, ""), **values})


def test_what_another_version_wrote_is_refused_in_one_line_with_the_cure(old: Path) -> None:
    record = old / "results" / "image" / "default" / RUN / RECORD_FILE
    changed(record, schema_version=7)
    (hole,) = load_records(old / "results", "image", "default").holes
    assert hole.why == f"{record} has schema 7, this code reads 1; repeat the run"
    changed(old / "prepared" / "manifest.json", format_version=1)
    with pytest.raises(Mt2stError, match="has format_version 1, this program reads 2; remove the folder and run"):
        PreparedDataset.open(old / "prepared")
    changed(manifest_path(old / "few.index"), format_version=1)
    with pytest.raises(Mt2stError, match="has format 1, not 2; build the index again and save it"):
        load_index(old / "few.index", "data of version 0.1")


def test_the_kept_files_are_those_of_version_0_1() -> None:
    record = json.loads((OLD / "results" / "image" / "default" / RUN / RECORD_FILE).read_text())
    assert record["commit"] == {"dirty": False, "hash": "671b436ffbe2fa304e950976b9d44a18b22b4f2e"}
    assert "accumulation" in record["config"]["knobs"], "0.1 kept training knobs flat"
