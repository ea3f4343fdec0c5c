"""Run folders: identity, lock, states, seals, and what is left when something breaks."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.records import folder as record_module
from benchmarks.records.check import FINISHED_NEEDS, IDENTITY, ITEMS_FILE, RECORD_FILE
from benchmarks.records.folder import RunFolder, config_hash, run_id
from benchmarks.records.lock import LockedError, RunLock, lock_owner
from benchmarks.records.read import load_records
from mt2st.errors import Mt2stError
from mt2st.files import write_sealed_json

ROOT = Path(__file__).parents[3]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
RECORD = {
    "views": ["equal-steps"],
    "started_utc": "2026-01-02T03:04:05+00:00",
    "steps": 10,
    "flops": {"total": 5.0e9},
    "metrics": {"validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}},
    "curve": [{"step": 10, "flops": 5.0e9, "seconds": 1.0, "accuracy": 0.5}],
}
ITEMS = {"score": np.array([0.0, 1.0, 0.5], np.float32), "prediction": np.array([3, 1, 2])}


def folder_of(root: Path, seed: int = 0, **config: object) -> RunFolder:
    return RunFolder.of(
        root, "vqa", "default", strategy="Sampled Diminish", view="equal-steps", seed=seed, config=config
    )


def finished(root: Path, seed: int = 0) -> RunFolder:
    folder = folder_of(root, seed, rate=3.0)
    with folder.lock():
        folder.begin()
        folder.finish(RECORD, ITEMS)
    return folder


def test_run_id_is_readable_and_depends_on_every_knob() -> None:
    name = run_id("Sampled Diminish", "equal-steps", 3, {"b": 1, "a": (1, 2)})
    assert name == f"sampled-diminish-equal-steps-s3-{config_hash({'a': [1, 2], 'b': 1})[:8]}"
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert config_hash({"a": np.float64(0.5), "p": Path("x")}) == config_hash({"p": "x", "a": 0.5})


def test_a_run_goes_from_new_to_finished_and_reads_back(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, rate=3.0)
    assert folder.state() == "new"
    with folder.lock():
        folder.begin()
        assert folder.state() == "unfinished"
        folder.append_metrics(step=1, loss=0.5)
        folder.finish(RECORD, ITEMS)
    assert folder.state() == "finished"
    assert RunFolder.existing(folder.path).state() == "finished"
    records = load_records(tmp_path, "vqa", "default")
    assert [run.seed for run in records.finished] == [0]
    assert not records.holes
    run = records.finished[0]
    assert run.strategy == "Sampled Diminish"
    assert run.values["config"] == {"rate": 3.0}
    np.testing.assert_array_equal(run.items["score"], ITEMS["score"])
    np.testing.assert_array_equal(run.items["prediction"], ITEMS["prediction"])
    assert run.metric("accuracy") == 0.25
    assert run.metric("no such metric") is None


def test_writing_needs_the_lock_and_a_finished_run_is_not_begun_again(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for action in (
        folder.begin,
        lambda: folder.finish(RECORD, {}),
        lambda: folder.append_metrics(step=1),
        folder.repair,
    ):
        with pytest.raises(Mt2stError, match="not locked"):
            action()
    folder = finished(tmp_path)
    with folder.lock(), pytest.raises(Mt2stError, match="is finished"):
        folder.begin()


def test_records_that_lack_fields_or_hold_texts_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with folder.lock():
        folder.begin()
        with pytest.raises(Mt2stError, match="lacks curve"):
            folder.finish({name: value for name, value in RECORD.items() if name != "curve"}, ITEMS)
        with pytest.raises(Mt2stError, match="numbers or bools"):
            folder.finish(RECORD, {"answer": np.array(["a", "b"])})
        with pytest.raises(Mt2stError, match="object"):
            folder.finish(RECORD, {"answer": np.array([None, {}])})
        with pytest.raises(Mt2stError, match="no JSON form"):
            folder.finish({**RECORD, "model": {"thing": object()}}, ITEMS)
        assert folder.state() == "unfinished"


@pytest.mark.parametrize("bad", ["../up", "a/b", "", ".hidden"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(Mt2stError, match="becomes a folder's name"):
        RunFolder.of(tmp_path, "vqa", bad, strategy="STL", view="equal-steps", seed=0, config={})


def test_not_finite_numbers_become_null(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with folder.lock():
        folder.begin()
        folder.finish({**RECORD, "metrics": {"test": {"ece": float("nan"), "rank": np.float32("inf")}}}, {})
    assert load_records(tmp_path, "vqa", "default").finished[0].values["metrics"] == {
        "test": {"ece": None, "rank": None}
    }


def test_failed_and_interrupted_runs_are_holes_with_a_reason_and_can_begin_again(tmp_path: Path) -> None:
    failed, stopped, killed = folder_of(tmp_path, 0), folder_of(tmp_path, 1), folder_of(tmp_path, 2)
    with failed.lock():
        failed.begin()
        failed.fail({"steps": 3}, "loss is NaN\nat step 3 of task vqa")
    with stopped.lock():
        stopped.begin()
        stopped.interrupt({"steps": 4})
    with killed.lock():
        killed.begin()
    holes = load_records(tmp_path, "vqa", "default").holes
    assert [(hole.kind, hole.seed) for hole in holes] == [("failed", 0), ("interrupted", 1), ("unfinished", 2)]
    assert holes[0].why == "loss is NaN at step 3 of task vqa"
    assert "resume" in holes[2].why
    assert failed.state() == stopped.state() == "unfinished"
    with failed.lock():
        failed.begin()
        failed.finish(RECORD, ITEMS)
    assert failed.state() == "finished"


def test_a_folder_that_holds_another_configuration_is_never_taken(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    other = RunFolder(folder.path, {**folder.identity, "config_hash": "0" * 64})
    assert other.state() == "damaged"
    with other.lock(), pytest.raises(Mt2stError, match="describes another run"):
        other.repair()
    assert folder.state() == "finished"


def test_suites_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    for day, knobs in enumerate(({"width": 32}, {"width": 64})):
        config = {**knobs, "steps": 9}
        folder = RunFolder.of(
            tmp_path, "vqa", "default", strategy="STL", view="equal-steps", seed=0, config=config, suite=knobs
        )
        with folder.lock():
            folder.begin()
            folder.finish({**RECORD, "started_utc": f"2026-01-0{day + 1}"}, {})
    records = load_records(tmp_path, "vqa", "default")
    assert [run.values["config"]["width"] for run in records.finished] == [64]
    assert records.other_suites == {config_hash({"width": 32}): 1}
    older = load_records(tmp_path, "vqa", "default", suite_hash=config_hash({"width": 32})[:8])
    assert [run.values["config"]["width"] for run in older.finished] == [32]
    with pytest.raises(Mt2stError, match="unknown suite"):
        load_records(tmp_path, "vqa", "default", suite_hash="zz")


def test_unknown_benchmark_and_recipe_get_the_nearest_name(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(Mt2stError, match="did you mean 'vqa'"):
        load_records(tmp_path, "vqaa", "default")
    with pytest.raises(Mt2stError, match="did you mean 'default'"):
        load_records(tmp_path, "vqa", "defualt")
    with pytest.raises(Mt2stError, match="does not exist"):
        load_records(tmp_path / "no", "vqa", "default")


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [RECORD_FILE, ITEMS_FILE])
def test_every_flipped_byte_and_every_truncation_is_detected(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path)
    path = folder.path / name
    good = path.read_bytes()
    sentinel = load_records(tmp_path, "vqa", "default")
    assert len(sentinel.finished) == 1
    # A flip inside the white space between JSON tokens can leave the same value, which is no damage.
    value = json.loads(good) if name == RECORD_FILE else None
    detected = 0
    for position in range(0, len(good), max(1, len(good) // 150)):
        for broken in (good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :], good[:position]):
            path.write_bytes(broken)
            try:
                same = value is not None and json.loads(broken) == value
            except ValueError:
                same = False
            records = load_records(tmp_path, "vqa", "default")
            assert bool(records.finished) == same, position
            assert same or (records.holes[0].kind == "damaged" and name in records.holes[0].why)
            assert same or folder.state() == "damaged"
            detected += not same
    assert detected > 100
    path.write_bytes(good[: len(good) // 2])
    with folder.lock():
        assert name in folder.repair()[0]
        assert folder.state() == "unfinished"
        folder.begin()
        folder.finish(RECORD, ITEMS)
    assert folder.state() == "finished"


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": ["a"]},
        {"flops": {}},
        {"flops": {"total": "1"}},
        {"items": {"file": "../../secret", "sha256": ""}},
        {"schema_version": 99},
        {"run_id": "another"},
        {"curve": None},
        {"seed": "0"},
        {"metrics": {"test": 3}},
        {"metrics": {"test": {"accuracy": "0.5"}}},
        {"floors": {"chance": [0.1]}},
        {"curve": [3]},
        {"curve": [{"flops": "many"}]},
        {"views": [1]},
        {"group_names": {"question_type": "abc"}},
    ],
)
def test_a_sealed_record_of_foreign_form_is_named_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    folder = finished(tmp_path)
    values = load_records(tmp_path, "vqa", "default").finished[0].values
    write_sealed_json(folder.path / RECORD_FILE, {**values, **change})
    records = load_records(tmp_path, "vqa", "default")
    assert not records.finished
    assert [hole.kind for hole in records.holes] == ["damaged"]


def test_a_pickle_in_place_of_items_is_never_opened(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    (folder.path / ITEMS_FILE).write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    assert load_records(tmp_path, "vqa", "default").holes[0].kind == "damaged"
    assert not (tmp_path / "ran").exists()


def test_damaged_config_is_set_aside_and_written_anew(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with folder.lock():
        folder.begin()
        (folder.path / "config.json").write_text("{")
        assert folder.state() == "damaged"
        with pytest.raises(Mt2stError, match=r"config\.json"):
            folder.begin()
        assert len(folder.repair()) == 1
        folder.begin()
    assert folder.state() == "unfinished"
    with pytest.raises(Mt2stError, match="no folder"):
        RunFolder.existing(tmp_path / "nothing")


def test_a_crash_between_items_and_record_leaves_an_unfinished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with folder.lock():
        folder.begin()
        monkeypatch.setattr(record_module, "write_sealed_json", crash)
        with pytest.raises(KeyboardInterrupt):
            folder.finish(RECORD, ITEMS)
    monkeypatch.undo()
    assert (folder.path / ITEMS_FILE).exists()
    assert folder.state() == "unfinished"
    with folder.lock():
        folder.begin()
        folder.finish(RECORD, ITEMS)
    assert folder.state() == "finished"


# -- lock --------------------------------------------------------------------------------------------------------------


def test_a_second_owner_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with RunLock(tmp_path / "lock"):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on host"), RunLock(tmp_path / "lock"):
            pass
        waited: list[str] = []
        with pytest.raises(LockedError), RunLock(tmp_path / "lock", wait_seconds=0.15, on_wait=waited.append):
            pass
        assert len(waited) == 1
    with RunLock(tmp_path / "lock") as lock:
        assert lock.outlived == ""


def test_two_threads_with_locks_of_their_own_take_turns(tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, entered
        for _ in range(5):
            with RunLock(tmp_path / "lock", wait_seconds=math.inf):
                inside += 1
                entered += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, entered) == (1, 15)


def test_the_note_can_be_read_while_the_lock_is_held_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    note = tmp_path / "lock.owner"
    with RunLock(path):
        assert json.loads(note.read_text())["pid"] == os.getpid()
        note.write_text("{torn")
        assert lock_owner(path) == "another process"
        note.write_text("[" * 100_000)
        assert lock_owner(path) == "another process"
    assert not note.exists()
    note.write_text(json.dumps({"pid": 7, "host": "elsewhere"}))  # its owner was killed
    assert lock_owner(path) == ""
    with RunLock(path) as lock:
        assert lock.outlived == "process 7 on host elsewhere since ?"


FORKED = """
import gc, os, sys
from pathlib import Path
from benchmarks.records.lock import LockedError, RunLock
path = Path(sys.argv[1])
with RunLock(path) as lock:
    child = os.fork()
    if child == 0:
        assert not lock.held
        lock.__exit__(None, None, None)
        del lock
        gc.collect()
        sys.exit(0)  # an orderly end, with finalisers
    assert os.waitpid(child, 0)[1] == 0
    assert lock.held and Path(f"{path}.owner").exists()
    try:
        with RunLock(path):
            sys.exit("the child's end gave its parent's lock back")
    except LockedError:
        pass
"""


def test_a_forked_child_that_ends_leaves_its_parents_lock_alone(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", FORKED, str(tmp_path / "lock")], cwd=ROOT, check=False)
    assert result.returncode == 0


def test_a_file_system_without_locks_is_named_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(Mt2stError, match="cannot be locked"), RunLock(tmp_path / "lock"):
        pass


HOLDER = """
import os, sys, time
from pathlib import Path
from benchmarks.records.lock import RunLock
with RunLock(Path(sys.argv[1])):
    child = os.fork() if sys.argv[2] == "fork" else 1
    if child == 0:
        time.sleep(120)
        os._exit(0)
    print(child, flush=True)
    time.sleep(120)
"""


@pytest.mark.parametrize("mode", ["plain", "fork"])
def test_a_lock_that_outlives_a_killed_owner_is_recognised(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), mode], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        with pytest.raises(LockedError, match=f"process {holder.pid} "), RunLock(path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with RunLock(path, wait_seconds=5) as lock:  # at once, though a forked child of the dead owner lives on
            assert f"process {holder.pid} " in lock.outlived
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()
        if mode == "fork":
            os.kill(child, signal.SIGKILL)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from benchmarks.records.folder import RunFolder
root = Path(sys.argv[1])
for seed in range(5):
    folder = RunFolder.of(root, "vqa", "default", strategy="STL", view="equal-steps", seed=seed, config={})
    with folder.lock(wait_seconds=60):
        if folder.state() == "finished":
            continue
        folder.begin()
        folder.append_metrics(step=1)
        record = {"views": ["equal-steps"], "started_utc": "x", "steps": 1, "flops": {"total": 1}, "metrics": {}}
        folder.finish({**record, "curve": []}, {"score": np.full(100, seed, np.float32)})
"""


def test_four_processes_that_share_a_results_folder_lose_and_repeat_nothing(tmp_path: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    records = load_records(tmp_path, "vqa", "default")
    assert [run.seed for run in records.finished] == list(range(5))
    assert not records.holes
    for run in records.finished:
        assert (run.items["score"] == run.seed).all()
        assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_the_owner_is_named_while_it_writes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    assert folder.owner() == ""
    with folder.lock():
        folder.begin()
        assert f"process {os.getpid()} " in folder.owner()
        assert "still running" in load_records(tmp_path, "vqa", "default").holes[0].why
    assert folder.owner() == ""


# -- metrics.jsonl -----------------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_dropped_and_the_next_append_heals_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with folder.lock():
        folder.begin()
        assert folder.metrics() == []
        for step in range(1, 4):
            folder.append_metrics(step=step, loss=np.float32(0.5), bad=float("nan"))
        log = folder.path / "metrics.jsonl"
        whole = log.read_bytes()
        log.write_bytes(whole[:-4])
        assert [line["step"] for line in folder.metrics()] == [1, 2]
        folder.append_metrics(step=3, loss=np.float32(0.5), bad=float("nan"))
        assert log.read_bytes() == whole
        assert folder.metrics()[0] == {"step": 1, "loss": 0.5, "bad": None}


def test_resume_cuts_the_log_to_the_checkpoint(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with folder.lock():
        folder.begin()
        for step in range(1, 6):
            folder.append_metrics(step=step)
        log = folder.path / "metrics.jsonl"
        expected = b"".join(log.read_bytes().splitlines(keepends=True)[:3])
        log.write_bytes(log.read_bytes() + b'{"step": 6')
        assert folder.truncate_metrics(3) == 2
        assert log.read_bytes() == expected
        assert folder.truncate_metrics(3) == 0
        log.write_bytes(b"[]\n" + expected)
        with pytest.raises(Mt2stError, match="line 1"):
            folder.metrics()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["run.json", "config.json"]),
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_whatever_stands_in_a_record_it_is_a_hole_and_never_a_crash(tmp_path: Path, name: str, content: bytes) -> None:
    folder = folder_of(tmp_path)
    folder.path.mkdir(parents=True, exist_ok=True)
    for old in ("run.json", "config.json"):
        (folder.path / old).unlink(missing_ok=True)
    (folder.path / name).write_bytes(content)
    records = load_records(tmp_path, "vqa", "default")
    assert not records.finished
    assert [hole.kind for hole in records.holes] == ["damaged"]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from([*IDENTITY, *FINISHED_NEEDS, "items", "floors", "status", "why"]), JSON, max_size=4)
)
def test_a_sealed_record_with_foreign_values_loads_or_is_named_damaged(
    tmp_path: Path, change: dict[str, object]
) -> None:
    folder = folder_of(tmp_path, rate=3.0)
    if not folder.path.exists():
        finished(tmp_path)
        (tmp_path / "whole.json").write_bytes((folder.path / RECORD_FILE).read_bytes())
    whole = json.loads((tmp_path / "whole.json").read_text())
    del whole["sha256"]
    write_sealed_json(folder.path / RECORD_FILE, {**whole, **change})
    records = load_records(tmp_path, "vqa", "default")
    assert len(records.finished) + len(records.holes) == 1
