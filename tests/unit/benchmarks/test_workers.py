"""Workers as processes, the engine of this machine, and the driver's decisions: with a worker that only pretends."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.records.folder import RunFolder
from benchmarks.suite import drive, engines
from benchmarks.suite.engines import Check, Ended, Needs, Order, engine_names, local, open_engine, slots_here
from benchmarks.suite.engines._process import WorkerProcess
from benchmarks.suite.progress import Board
from benchmarks.suite.runs import Planned, Run
from mt2st.errors import Mt2stError
from tests.helpers.tiny_suite import until

CHECK = Check("1", "beacon", "word")
# Does as its orders' `run_dir` says, and prints a line that is no answer first.
PRETENDER = """
import json, os, signal, sys, time
print("a library says hello", flush=True)
for line in sys.stdin:
    what = json.loads(line)["run_dir"]
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "leave":
        sys.exit(3)
    if what == "tear":
        sys.stdout.write('{"kind": "fin')
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "stay":
        time.sleep(1000)
    print(json.dumps({"kind": what, "text": os.environ["OMP_NUM_THREADS"], "seconds": 1.5}), flush=True)
    if what == "interrupted":
        time.sleep(0.3)
        sys.exit(130)
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A folder from which `python -m benchmarks work` is the pretender."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "__main__.py").write_text(PRETENDER)
    return str(tmp_path)


@pytest.fixture
def worker(root: str) -> Iterator[WorkerProcess]:
    process = WorkerProcess(root, vars(CHECK), threads=3)
    yield process
    process.end()
    process.wait(0.0)


def answer_to(worker: WorkerProcess, what: str) -> dict[str, Any]:
    worker.give({"run_dir": what})
    found: dict[str, Any] | None = worker.answer(20.0)
    assert found is not None
    return found


class TestWorkerProcess:
    def test_one_answer_an_order(self, worker: WorkerProcess) -> None:
        assert worker.answer() is None
        assert answer_to(worker, "finished") == {"kind": "finished", "text": "3", "seconds": 1.5}
        assert answer_to(worker, "failed")["kind"] == "failed"
        assert worker.answer(0.05) is None

    @pytest.mark.parametrize(
        ("order", "story"),
        [
            ("die", "was ended by SIGKILL, perhaps for want of memory"),
            ("tear", "was ended by SIGKILL, perhaps for want of memory"),
            ("leave", "ended with exit code 3"),
        ],
    )
    def test_a_death_is_told(self, worker: WorkerProcess, order: str, story: str) -> None:
        assert answer_to(worker, order) == {"kind": "died", "text": f"its process {worker.pid} {story}"}
        assert answer_to(worker, "finished")["kind"] == "died"  # as often as it is asked

    def test_the_end_of_orders_ends_it(self, worker: WorkerProcess) -> None:
        answer_to(worker, "finished")
        worker.end()
        worker.end()
        worker.wait()
        assert not psutil.pid_exists(worker.pid)

    def test_what_does_not_end_is_killed(self, worker: WorkerProcess) -> None:
        answer_to(worker, "finished")
        worker.give({"run_dir": "stay"})
        worker.end()
        worker.wait(0.1)
        assert not psutil.pid_exists(worker.pid)


class TestLocalEngine:
    @pytest.fixture
    def engine(self, root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[local.Engine]:
        monkeypatch.setattr(local, "ROOT", root)
        engine = local.Engine(JobKnobs(jobs=2), Needs(), CHECK, 9)
        yield engine
        engine.stop()

    def ended(self, engine: local.Engine) -> list[Ended]:
        return until(engine.ended, 120.0)

    def test_orders_end_in_any_order(self, engine: local.Engine) -> None:
        assert engine.slots == 2
        engine.start(Order("stay"))
        engine.start(Order("finished"))
        assert self.ended(engine) == [Ended("finished", "finished", "1", 1.5)]
        engine.start(Order("skipped"))
        assert [end.run_dir for end in self.ended(engine)] == ["skipped"]
        pid = int(engine.place("stay").removeprefix("process "))
        assert engine.place("skipped") == ""
        os.kill(pid, signal.SIGKILL)
        assert [end.kind for end in self.ended(engine)] == ["died"]

    @pytest.mark.parametrize("order", ["die", "interrupted"])
    def test_a_worker_that_has_gone_gets_no_more_orders(self, engine: local.Engine, order: str) -> None:
        engine.start(Order(order))
        before = engine.place(order)
        assert [end.run_dir for end in self.ended(engine)] == [order]
        engine.start(Order("finished"))
        assert engine.place("finished") != before
        assert [end.kind for end in self.ended(engine)] == ["finished"]

    def test_a_refusal_is_an_error(self, engine: local.Engine) -> None:
        engine.start(Order("refused"))
        with pytest.raises(Mt2stError, match=r"^1$"):
            self.ended(engine)

    def test_stop_ends_all(self, engine: local.Engine) -> None:
        for _ in range(2):
            engine.start(Order("finished"))
        pids = [child.pid for child in psutil.Process().children() if "work" in child.cmdline()]
        engine.stop()
        assert len(pids) == 2
        assert not any(map(psutil.pid_exists, pids))

    def test_more_jobs_than_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(local, "gpu_names", lambda: ["0", "1"])
        with pytest.raises(Mt2stError, match=r"--jobs 5 are more than 2 GPUs × 2 runs; lower --jobs, or raise"):
            local.Engine(JobKnobs(jobs=5, jobs_per_device=2), Needs(), CHECK, 9)
        assert local.Engine(JobKnobs(jobs=4, jobs_per_device=2), Needs(), CHECK, 9).slots == 4

    def test_by_name(self) -> None:
        assert "local" in engine_names()
        with pytest.raises(Mt2stError, match=r"'locl'.*did you mean 'local'"):
            open_engine(JobKnobs(engine="locl"), Needs(), CHECK, 1)


def planned(root: Path, seed: int, steps: int = 10) -> Planned:
    run = Run("MTL", seed, steps, ("equal-steps",), 1000, 0.5)
    folder = RunFolder.of(root, "vqa", "r", strategy="MTL", view="equal-steps", seed=seed, config={"seed": seed})
    return Planned(SimpleNamespace(), run, folder)  # type: ignore[arg-type]


class Scripted:
    """An engine whose runs end as a script says: run folder → how, one for each time it is ordered."""

    slots = 2

    def __init__(self, script: dict[str, list[str]]) -> None:
        self.script, self.orders = script, list[Order]()
        self._waiting: list[Order] = []

    def start(self, order: Order) -> None:
        self.orders.append(order)
        self._waiting.append(order)

    def ended(self) -> list[Ended]:
        order = self._waiting.pop()  # the last one first
        return [Ended(order.run_dir, self.script[order.run_dir].pop(0), "so it was")]  # type: ignore[arg-type]

    def place(self, run_dir: str) -> str:
        return "here"

    def stop(self) -> None:
        assert not self._waiting


class TestDriver:
    def drive(self, tmp_path: Path, *scripts: list[str]) -> tuple[int, Scripted, str, list[Planned]]:
        plan = [planned(tmp_path, seed) for seed in range(len(scripts))]
        engine = Scripted({str(each.folder.path): list(script) for each, script in zip(plan, scripts)})
        console = Console(file=io.StringIO(), width=80)
        failed = drive._Driver(plan, engine, Board(plan, engine.place, console)).run()
        return failed, engine, console.file.getvalue(), plan  # type: ignore[attr-defined]

    def test_all_are_made_whatever_ends_first(self, tmp_path: Path) -> None:
        failed, engine, printed, plan = self.drive(tmp_path, *[["finished"]] * 5)
        assert failed == 0
        assert sorted(order.run_dir for order in engine.orders) == sorted(str(each.folder.path) for each in plan)
        assert [line[:5] for line in printed.splitlines()] == [f"[{number}/5]" for number in range(1, 6)]

    def test_the_failed_are_counted_and_the_others_go_on(self, tmp_path: Path) -> None:
        assert self.drive(tmp_path, ["failed"], ["finished"], ["failed"])[0] == 2

    @pytest.mark.parametrize("kind", ["died", "interrupted"])
    def test_once_more_and_no_more(self, tmp_path: Path, kind: str) -> None:
        failed, _, printed, plan = self.drive(tmp_path, [kind, "finished"], [kind, kind], ["finished"])
        assert failed == 1
        assert f"MTL seed 0, 10 steps: so it was; log: {plan[0].folder.log}; tried again from step 0" in printed
        assert "MTL seed 1, 10 steps (equal-steps): failed twice without a newer checkpoint: so it was" in printed
        assert plan[1].folder.status() == "failed"
        assert plan[0].folder.log.read_text() == f"{kind}: so it was\n"

    def test_progress_gives_another_try(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        steps = iter([10, 20, 20])
        monkeypatch.setattr(drive, "newest_checkpoint", lambda folder: (folder, {"step": next(steps)}))
        failed, engine, printed, _ = self.drive(tmp_path, ["died", "died", "died"])
        assert (failed, len(engine.orders)) == (1, 3)
        assert "tried again from step 10" in printed
        assert "tried again from step 20" in printed

    def test_runs_in_other_hands_are_put_off_and_waited_for_at_last(self, tmp_path: Path) -> None:
        failed, engine, printed, plan = self.drive(tmp_path, ["held", "held", "held", "skipped"], ["finished"])
        assert failed == 0
        held = [order for order in engine.orders if order.run_dir == str(plan[0].folder.path)]
        assert [order.shared for order in held] == [False, True, True, True]
        assert held[0].wait_seconds == 0
        assert held[-1].wait_seconds > 0
        assert printed.count("put off, so it was") == 1

    def test_a_folder_of_another_run_is_a_failed_run(self, tmp_path: Path) -> None:
        foreign = planned(tmp_path, 1).folder
        own = planned(tmp_path, 0).folder
        with foreign.lock():
            foreign.announce()
        foreign.path.rename(own.path)
        failed, engine, printed, _ = self.drive(tmp_path, [], ["finished"])
        assert (failed, len(engine.orders)) == (1, 1)
        assert "describes another run" in printed


class TestSlots:
    @pytest.fixture(autouse=True)
    def eight_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engines, "usable_cores", lambda: 8)
        monkeypatch.setattr(engines, "gpu_count", lambda: 0)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))

    @pytest.mark.parametrize(
        ("needs", "most", "slots"),
        [
            (Needs(), 100, 8),
            (Needs(threads=3), 100, 2),
            (Needs(threads=16), 100, 1),
            (Needs(), 3, 3),
            (Needs(memory_bytes=2_000), 100, 4),  # a fifth of the free memory is left alone
            (Needs(memory_bytes=20_000), 100, 1),
        ],
    )
    def test_cores_memory_and_work(self, needs: Needs, most: int, slots: int) -> None:
        assert slots_here(needs, 1, most) == slots

    def test_gpus_decide_where_there_are_some(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engines, "gpu_count", lambda: 2)
        assert slots_here(Needs(), 3, 100) == 6


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"jobs": -1}, r"jobs = -1 must be ≥ 0; 0 = as many"),
        ({"jobs_per_device": 0}, r"jobs_per_device = 0 must be ≥ 1"),
        ({"ray_address": "auto"}, r"ray_address = 'auto' needs --engine ray, not local"),
        ({"slurm": ("a=b",)}, r"slurm = a=b needs --engine slurm, not local"),
        ({"slurm": ("a",), "engine": "slurm"}, r"slurm: 'a' is not NAME=VALUE; for example"),
        ({"slurm": ("=b",), "engine": "slurm"}, r"slurm: '=b' is not NAME=VALUE"),
    ],
)
def test_job_knobs_that_cannot_be(values: dict[str, Any], error: str) -> None:
    with pytest.raises(Mt2stError, match=error):
        JobKnobs(**values)


class TestBoard:
    """The plain lines; what is in work is read from the runs' folders."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        clock = SimpleNamespace(now=100.0)
        monkeypatch.setattr(time, "monotonic", lambda: clock.now)
        return clock

    def log(self, each: Planned, *lines: dict[str, Any], tail: str = "") -> None:
        each.folder.path.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (each.folder.path / "metrics.jsonl").write_text(text + tail)

    def test_seconds_left_at_the_pace_so_far(self, tmp_path: Path, clock: SimpleNamespace) -> None:
        plan = [planned(tmp_path, seed, steps=100) for seed in range(4)]
        console = Console(file=io.StringIO(), width=40)
        board = Board(plan, lambda path: "here", console)
        assert board.seconds_left() is None
        board.end(plan[0], "finished before, skipped", trained=False)  # what was skipped says nothing of the pace
        assert board.seconds_left() is None
        board.start(plan[1])
        board.tick()
        self.log(plan[1], {"event": "train", "step": 20})
        clock.now += 10
        board.tick()
        validation = {"event": "validation", "step": 50, "seconds": 1, "acc": 0.25}
        self.log(plan[1], {"event": "train", "step": 20}, validation)
        clock.now += 15
        board.tick()
        (run,) = board.in_work.values()
        assert (run.step, run.score) == (50, "acc 0.2500")
        assert run.seconds_left == pytest.approx(15 / 30 * 50)
        assert board.seconds_left() == pytest.approx(25 / 500 * 2500)
        clock.now += 60
        board.tick()
        board.tick()  # once a minute
        board.end(plan[1], "acc 0.3000", trained=True)
        printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert printed == [
            "[1/4] MTL seed 0, 100 steps (equal-steps): finished before, skipped; time left not known yet",
            "in work: MTL seed 1 step 50/100 acc 0.2500; about 7.1 min left",
            "[2/4] MTL seed 1, 100 steps (equal-steps): acc 0.3000; about 2.8 min left",
        ]
        assert board.in_work == {}

    def test_torn_and_foreign_lines_are_passed_over(self, tmp_path: Path, clock: SimpleNamespace) -> None:
        (each,) = plan = [planned(tmp_path, 0, steps=100)]
        board = Board(plan, lambda path: "here", Console(file=io.StringIO()))
        board.start(each)
        (run,) = board.in_work.values()
        board.tick()
        assert (run.step, run.seconds_left) == (0, None)
        self.log(each, {"event": "train", "step": 7}, tail='{"event": "train", "st')
        board.tick()
        assert run.step == 7
        self.log(each, {"event": "train", "step": 8}, tail='17\n[1]\nnonsense\n{"step": 9')
        board.tick()
        assert run.step == 8
        (each.folder.path / "metrics.jsonl").unlink()  # as a resume does
        board.tick()
        assert run.step == 8

    def test_only_the_end_of_a_long_log_is_read(self, tmp_path: Path, clock: SimpleNamespace) -> None:
        (each,) = plan = [planned(tmp_path, 0, steps=10_000)]
        self.log(each, *({"event": "train", "step": step, "loss": 1 / 3} for step in range(1, 9_001)))
        board = Board(plan, lambda path: "here", Console(file=io.StringIO()))
        board.start(each)
        board.tick()
        assert next(iter(board.in_work.values())).step == 9_000
        assert (each.folder.path / "metrics.jsonl").stat().st_size > 1 << 17

    def test_a_terminal_gets_a_table(self, tmp_path: Path) -> None:
        (each,) = plan = [planned(tmp_path, 0, steps=100)]
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        board = Board(plan, lambda path: "process 12", console)
        self.log(each, {"event": "train", "step": 40})
        with board.shown():
            board.start(each)
            board.say("a line above")
            until(lambda: "40/100" in console.file.getvalue(), 60.0)  # type: ignore[attr-defined]
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        assert "process 12" in printed
        assert "0 of 1 runs, 40% of the FLOPs" in printed
        assert "a line above" in printed
