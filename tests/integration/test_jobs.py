"""Runs side by side: the same bits as one after the other, whatever ends a worker or the driver, and whenever."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import cli
from benchmarks.records.folder import RunFolder
from benchmarks.suite.engines import Check, local
from benchmarks.suite.machine import code_version
from benchmarks.suite.worker import refusal
from tests.helpers.tiny_suite import (
    Command,
    arguments,
    differences,
    outcome,
    owner,
    run_folders,
    saved_step,
    until,
)

pytestmark = pytest.mark.timeout(900)
STEPS = 120
KNOBS = ("--strategies", "STL", "MTL", "Switch", "--steps", STEPS, "--checkpoint-every-steps", 10)
_ENDS_WITHIN_SECONDS = 60.0  # a worker whose driver is gone, on a busy machine


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def alone(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one process makes of the suite, one run after the other."""
    results = tmp_path_factory.mktemp("alone")
    assert cli.main(arguments("vqa", results, data_folder, *KNOBS, "--jobs", 1)) == 0
    found = outcome(results)
    assert len(found) == 3
    return found


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Do `action` in a thread while the block runs; what it raises is raised at the end of the block."""
    errors: list[Exception] = []

    def guarded() -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


def run_in_work(results: Path, name: str, after_step: int, command: Command | None = None) -> Path:
    """Wait until a run whose id begins with `name` has a checkpoint at `after_step` or later; its folder.

    Raises:
        AssertionError: `command`, which makes the run, ended before.
    """

    def found() -> list[Path]:
        if command is not None:
            assert command.process.poll() is None, command.printed
        return [
            folder
            for folder in run_folders(results)
            if folder.name.startswith(name) and saved_step(folder) >= after_step
            if owner(folder) not in (0, os.getpid())  # a driver in this process, which makes the folder ready
        ]

    folders: list[Path] = until(found)
    return folders[0]


def no_children_left() -> bool:
    return not [child for child in psutil.Process().children() if "work" in child.cmdline()]


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.chaos)])
def test_a_worker_that_is_killed_is_named_and_its_run_goes_on(
    alone: dict[str, Any], data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: signal.Signals
) -> None:
    killed: list[int] = []

    def kill() -> None:
        folder = run_in_work(tmp_path, "mtl-", 20)
        killed.append(owner(folder))
        os.kill(killed[0], how)

    with meanwhile(kill):
        assert cli.main(arguments("vqa", tmp_path, data_folder, *KNOBS, "--jobs", 2)) == 0
    assert differences(alone, outcome(tmp_path)) == []
    assert no_children_left()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "tried again" in line]
    (folder,) = tmp_path.glob("vqa/default/mtl-*")
    assert line.startswith(f"MTL seed 0, {STEPS} steps: ")
    assert f"log: {folder / 'log.txt'}; tried again from step " in line
    assert int(line.rpartition(" ")[2]) >= 20
    if how == signal.SIGKILL:
        assert f"its process {killed[0]} was ended by SIGKILL, perhaps for want of memory" in line
    assert not list(tmp_path.glob("vqa/default/.driver-*"))


def test_a_run_that_kills_its_worker_twice_is_failed_and_the_others_go_on(
    alone: dict[str, Any], data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    knobs = (*KNOBS[:-1], 0)  # no checkpoints before the end
    killed: set[int] = set()

    def kill() -> None:
        while len(killed) < 2:
            folder = run_in_work(tmp_path, "mtl-", 0)
            if (pid := owner(folder)) not in {0, os.getpid(), *killed}:  # 0: nobody; the driver looks too
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    with meanwhile(kill):
        argv = arguments("vqa", tmp_path, data_folder, *knobs, "--checkpoint-every-seconds", 0, "--jobs", 2)
        assert cli.main(argv) == 1
    printed = capsys.readouterr().out
    assert "tried again from step 0" in printed
    assert "failed twice without a newer checkpoint: its process " in printed
    state = {folder.name.partition("-")[0]: RunFolder.existing(folder).status() for folder in run_folders(tmp_path)}
    assert state == {"stl": "finished", "mtl": "failed", "switch": "finished"}
    assert no_children_left()


@pytest.mark.chaos
def test_driver_interrupted_then_killed_and_the_same_command_goes_on(
    alone: dict[str, Any], data_folder: Path, tmp_path: Path
) -> None:
    argv = arguments("vqa", tmp_path / "results", data_folder, *KNOBS, "--jobs", 2)
    first = Command(argv, tmp_path / "first.log")
    try:
        run_in_work(tmp_path / "results", "", 10, first)
        first.process.send_signal(signal.SIGINT)
        assert first.wait() == 130
        assert first.offspring() == []
        assert first.printed.splitlines()[-1].endswith("the same command goes on from the last checkpoint")
        assert "Traceback" not in first.printed
        begun = run_folders(tmp_path / "results")
        assert [RunFolder.existing(folder).status() for folder in begun if saved_step(folder)].count("interrupted")
    finally:
        first.end()
    second = Command(argv, tmp_path / "second.log")
    try:
        folder = run_in_work(tmp_path / "results", "", 10, second)  # any: a busy machine may have ended the others
        second.process.kill()
        second.wait()
        until(lambda: not second.offspring(), _ENDS_WITHIN_SECONDS)
        assert "Traceback" not in second.printed
        assert "Exception ignored" not in second.printed
        assert RunFolder.existing(folder).status() in ("interrupted", "finished")
    finally:
        second.end()
    assert cli.main(argv) == 0
    assert differences(alone, outcome(tmp_path / "results")) == []


def test_two_drivers_share_the_runs(alone: dict[str, Any], data_folder: Path, tmp_path: Path) -> None:
    """One with two workers, the other without."""
    argv = arguments("vqa", tmp_path / "results", data_folder, *KNOBS)
    other = Command([*argv, "--jobs", "2"], tmp_path / "other.log")
    try:
        until(lambda: run_folders(tmp_path / "results"))
        assert cli.main([*argv, "--jobs", "1"]) == 0
        assert other.wait() == 0
        assert other.offspring() == []
    finally:
        other.end()
    assert differences(alone, outcome(tmp_path / "results")) == []
    folders = run_folders(tmp_path / "results")
    assert [sum(line["step"] == STEPS and line["event"] == "train" for line in RunFolder.existing(folder).metrics()) for
            folder in folders] == [1, 1, 1]  # fmt: skip
    assert "Traceback" not in other.printed


class TestRefusal:
    """A worker that must not train says so in one line, before it does."""

    def test_one_line_each(self, tmp_path: Path) -> None:
        beacon = tmp_path / "results" / ".driver"
        check = Check(code_version(), str(beacon), "word")
        assert f"cannot see the driver's results folder {beacon.parent} (No such file or directory)" in refusal(check)
        beacon.parent.mkdir()
        beacon.write_text("another word")
        assert "(another word); give a folder on a path that all machines share (--results)" in refusal(check)
        beacon.write_text("word")
        assert refusal(check) == ""
        other = refusal(Check("0.1.0+abc", str(beacon), "word"))
        assert f"runs mt2st {code_version()}, the driver 0.1.0+abc; bring both to one version" in other
        assert "\n" not in other

    def test_for_real(
        self,
        data_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def older(knobs: Any, needs: Any, check: Check, most: int) -> local.Engine:
            return local.Engine(knobs, needs, Check("0.1.0+abc", check.beacon, check.word), most)

        monkeypatch.setattr("benchmarks.suite.drive.open_engine", older)
        assert cli.main(arguments("vqa", tmp_path, data_folder, *KNOBS, "--jobs", 2)) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
        assert line.startswith("error: the worker in ")
        assert line.endswith("the driver 0.1.0+abc; bring both to one version of the repository")
        assert not list(tmp_path.rglob("metrics.jsonl"))
        assert no_children_left()
