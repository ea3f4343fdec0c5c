"""Published suites: the report reads a pack as it reads run folders; `publish` refuses what would tell less."""

from __future__ import annotations

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.cli import main
from benchmarks.records.folder import RunFolder
from benchmarks.records.pack import PACK_FILE
from benchmarks.records.read import load_records
from benchmarks.report.publish import publish
from benchmarks.report.spec import Group, Metric, ReportSpec, accuracy
from benchmarks.report.write import ReportPaths, report
from mt2st.errors import Mt2stError
from mt2st.files import content_hash
from tests.helpers.synthetic_runs import LEVEL, write_run, write_suite

SPEC = ReportSpec(
    "Demo", accuracy(), columns=(Metric("ece", "ECE", decimals=3),), groups=(Group("question_type", "question type"),)
)


def quiet() -> Console:
    return Console(file=StringIO(), width=200)


def reported(root: Path) -> ReportPaths:
    return report("demo", "default", root, spec=SPEC, known=tuple(LEVEL), console=quiet())


def published(results: Path, out: Path, *, spec: ReportSpec = SPEC, with_holes: bool = False) -> str:
    """Publish, and return what was printed."""
    console = quiet()
    publish("demo", "default", results, out, spec=spec, known=tuple(LEVEL), console=console, with_holes=with_holes)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records to read only: 15 runs in one view."""
    return write_suite(tmp_path_factory.mktemp("suite"), items=60, views=("equal-steps",))


def test_a_pack_gives_the_files_that_its_run_folders_give(suite: Path, tmp_path: Path) -> None:
    printed = published(suite, tmp_path)
    folders, pack = reported(suite), reported(tmp_path)
    for one, other in zip(
        (folders.table, folders.summary, folders.html, *folders.pictures),
        (pack.table, pack.summary, pack.html, *pack.pictures),
    ):
        assert one.read_bytes() == other.read_bytes(), one.name
    file = tmp_path / "demo" / "default" / PACK_FILE
    assert f"{file.stat().st_size:,} bytes, {file.stat().st_size // 15:,} a run" in printed
    before = file.read_bytes()
    published(suite, tmp_path)
    assert file.read_bytes() == before


def test_arrays_of_a_packed_run_are_unpacked_when_asked_for(suite: Path, tmp_path: Path) -> None:
    published(suite, tmp_path)
    for packed, run in zip(
        load_records(tmp_path, "demo", "default").finished, load_records(suite, "demo", "default").finished
    ):
        assert packed.values == run.values
        assert not packed.folder.exists()
        assert "items" not in vars(packed)
        assert {name: array.tobytes() for name, array in packed.items.items()} == {
            name: array.tobytes() for name, array in run.items.items()
        }


def test_a_finished_folder_goes_before_the_pack_and_the_pack_before_any_other(suite: Path, tmp_path: Path) -> None:
    published(suite, tmp_path)
    place = tmp_path / "demo" / "default"
    finished, torn, unfinished = (run.folder for run in load_records(suite, "demo", "default").finished[:3])
    for folder in (finished, torn, unfinished):
        shutil.copytree(folder, place / folder.name)
    (place / torn.name / "items.safetensors").write_bytes(b"torn")
    (place / unfinished.name / "run.json").unlink()
    write_run(tmp_path, "MTL", "equal-steps", 7, fail="no memory")
    records = load_records(tmp_path, "demo", "default")
    assert len(records.finished) == 15
    from_folders = [run.folder.name for run in records.finished if run.pack is None]
    assert from_folders == [finished.name]
    assert [(hole.kind, hole.seed) for hole in records.holes] == [("failed", 7)]


def test_runs_of_another_suite_beside_a_pack_are_counted_not_mixed(suite: Path, tmp_path: Path) -> None:
    published(suite, tmp_path)
    first = load_records(tmp_path, "demo", "default")
    folder = RunFolder.of(
        tmp_path, "demo", "default", strategy="MTL", view="equal-steps", seed=0, config={}, suite={"width": 8}
    )
    with folder.lock():
        folder.begin()
        folder.finish({**first.finished[0].values, "started_utc": "2030-01-01T00:00:00+00:00"}, {})
    records = load_records(tmp_path, "demo", "default")
    assert [run.folder for run in records.finished] == [folder.path], "the suite that started last"
    assert records.other_suites == {first.suite_hash: 15}
    packed = load_records(tmp_path, "demo", "default", suite_hash=first.suite_hash[:8])
    assert len(packed.finished) == 15
    assert packed.other_suites == {content_hash({"width": 8}): 1}


def test_a_damaged_pack_is_refused_in_one_line(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(suite, tmp_path)
    shutil.move(tmp_path / "demo", tmp_path / "image")
    file = tmp_path / "image" / "default" / PACK_FILE
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert main(["report", "image", "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file} cannot be read")
    assert error.count("\n") == 1
    assert "git checkout" in error


# -- what publish refuses ----------------------------------------------------------------------------------------------


def test_holes_are_refused_unless_told_and_then_published_with_their_reason(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    write_suite(results, seeds=2, items=50, views=("equal-steps",))
    write_run(results, "MTL", "equal-steps", 2, fail="loss is NaN at step 3 of task vqa")
    started = write_run(results, "STL", "equal-steps", 2, items=50)
    (started.path / "run.json").unlink()
    with pytest.raises(Mt2stError, match=r"2 run\(s\) in .* have no result, such as mtl.*--with-holes"):
        published(results, out)
    assert not out.exists()
    printed = published(results, out, with_holes=True)
    assert f"left out: {started.name}, unfinished" in printed
    records = load_records(out, "demo", "default")
    assert [(hole.kind, hole.strategy, hole.why) for hole in records.holes] == [
        ("failed", "MTL", "loss is NaN at step 3 of task vqa")
    ]
    assert "2 of 3 (1 failed)" in (out / "demo" / "default" / "TABLE.md").read_text()


def test_a_suite_without_a_finished_run_is_refused_even_with_holes(tmp_path: Path) -> None:
    write_run(tmp_path / "results", "MTL", "equal-steps", 0, fail="no memory")
    with pytest.raises(Mt2stError, match="have no result, such as mtl"):
        published(tmp_path / "results", tmp_path / "out", with_holes=True)


def test_a_table_that_rounding_would_change_is_refused(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    for seed in range(2):
        folder = write_run(results, "MTL", "equal-steps", seed, items=50)
        record = load_records(results, "demo", "default").finished[-1]
        items = {**record.items, "confidence": np.random.default_rng(seed).random(50)}
        shutil.rmtree(folder.path)
        with folder.lock():
            folder.begin()
            folder.finish(record.values, items)
    published(results, out)
    shutil.rmtree(out)
    spec = replace(SPEC, columns=(Metric("confidence", "mean", True, ("confidence",), definition="mean confidence"),))
    with pytest.raises(Mt2stError, match="demo: its tables change when confidence is rounded"):
        published(results, out, spec=spec)
    assert not out.exists()


def test_what_is_published_grows(tmp_path: Path) -> None:
    """A pack with a failed run, and further run folders beside it, give what all of them at once give."""
    first, more, whole = tmp_path / "first", tmp_path / "more", tmp_path / "whole"
    for results in (first, whole):
        write_suite(results, seeds=2, items=50, views=("equal-steps",))
        write_run(results, "MTL", "equal-steps", 2, fail="no memory")
    published(first, more, with_holes=True)
    for results in (more, whole):
        write_run(results, "STL", "equal-steps", 2, items=50)
    published(more, tmp_path / "grown", with_holes=True)
    published(whole, tmp_path / "at once", with_holes=True)
    grown, at_once = (load_records(tmp_path / name, "demo", "default") for name in ("grown", "at once"))
    assert [run.folder.name for run in grown.finished] == [run.folder.name for run in at_once.finished]
    assert [(hole.kind, hole.seed) for hole in grown.holes] == [("failed", 2)]
    assert (tmp_path / "grown" / "demo" / "default" / "TABLE.md").read_text() == (
        tmp_path / "at once" / "demo" / "default" / "TABLE.md"
    ).read_text()


def test_pictures_of_budgets_that_are_gone_go_too_and_others_stay(tmp_path: Path) -> None:
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "out"
    write_suite(first, seeds=2, items=50, views=("equal-steps", "budget-0.3"))
    write_suite(second, seeds=2, items=50, views=("equal-steps",))
    published(first, out)
    folder = out / "demo" / "default"
    assert {"budget-0-3.png", "equal-steps.png", "cost.png"} <= {path.name for path in folder.iterdir()}
    (folder / "my-own.png").write_bytes(b"kept")
    published(second, out)
    assert {path.name for path in folder.glob("*.png")} == {"equal-steps.png", "cost.png", "my-own.png"}


def test_a_pack_is_not_written_beside_run_folders(suite: Path) -> None:
    with pytest.raises(Mt2stError, match="holds run folders, which a pack would stand beside"):
        published(suite, suite)
