"""What a step's time is spent on, what a switch saves in seconds, and the table of economies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cases import AUXILIARY, PRIMARY, Experiment, TestResult, load_card
from benchmarks.commands import economy as command
from benchmarks.records.folder import RunFolder
from benchmarks.report.spec import ReportSpec, accuracy
from benchmarks.speed import economy, step, step_against, step_processes
from benchmarks.speed.options import ECONOMIES, StepOptions, with_economy
from benchmarks.suite.costs import StepCosts, mixture_of
from benchmarks.suite.plan import training_flops
from mt2st.errors import Mt2stError
from mt2st.schedules import Constant, Switch
from mt2st.training.config import TrainConfig, TrainSettings
from mt2st.training.trainer import Trainer
from tests.helpers.tiny import mixture, streams, tiny_encoder

SPEC = ReportSpec(title="Made up", primary=accuracy("accuracy", "accuracy"))


def made_up(place: Path, name: str, strategy: str, seed: int, value: float, flops: float) -> None:
    folder = RunFolder.of(
        *(place / name, "demo", "default"),
        strategy=strategy,
        view="equal-steps",
        seed=seed,
        config={"economy": name},
        suite={"economy": name},
    )
    record: dict[str, Any] = {
        "views": ["equal-steps"],
        "started_utc": "2026-01-01T00:00:00+00:00",
        "steps": 10,
        "phases_seconds": {"train": 60.0},
        "flops": {"total": flops, "by_task": {}, "optimiser": 5},
        "metrics": {"validation": {"accuracy": value}, "test": {"accuracy": value}},
        "floors": {},
        "curve": [],
        "group_names": {},
        "commit": {"hash": "a" * 40, "dirty": False},
        "versions": {},
        "hardware": {"cpu": "none", "threads": 1, "gpus": []},
        "data": {"name": "demo", "revision": "1", "content_hash": "c" * 64},
        "model": {"parameters": 1},
    }
    with folder.lock():
        folder.begin()
        folder.finish(record, {"score": np.ones(3, np.float32)})


def test_differences_are_seed_by_seed(tmp_path: Path) -> None:
    for seed, (none, average) in enumerate([(0.90, 0.92), (0.80, 0.81)]):
        made_up(tmp_path, "none", "MTL", seed, none, 2e12)
        made_up(tmp_path, "average", "MTL", seed, average, 1e12)
    assert economy.write_table(tmp_path, "demo", "default", ["none", "average"], SPEC) is False
    none, average = json.loads((tmp_path / "demo-default.json").read_text())["rows"]
    assert "differences" not in none
    assert average["differences"] == pytest.approx([0.02, 0.01])
    assert average["share_of_flops"] == 0.5
    assert r"+0.0150 \[+0.0100, +0.0200\]" in (tmp_path / "demo-default.md").read_text()
    assert economy.write_table(tmp_path, "demo", "default", ["none", "patch-dropout"], SPEC) is True
    with pytest.raises(Mt2stError, match="holds no finished run of demo"):
        economy.write_table(tmp_path / "none", "demo", "default", ["none"], SPEC)


def test_each_economy_is_a_change_of_the_knobs() -> None:
    base = load_card("vqa").knobs("default")
    assert with_economy(base, "none") == base
    changed = {name: with_economy(base, name).shared() for name in ECONOMIES}
    assert len({json.dumps(knobs, default=str) for knobs in changed.values()}) == len(ECONOMIES)
    assert changed["patch-dropout"]["train"]["patch_dropout"] == 0.5
    assert tuple(changed["freeze-text"]["encoder"]["freeze"]) == ("text@from=0.5",)
    with pytest.raises(Mt2stError, match="no encoder to freeze"):
        with_economy(TrainSettings(), "freeze-text")
    with pytest.raises(Mt2stError, match="did you mean 'average'"):
        command.main(["--economies", "averages"])


def test_operators_are_grouped_by_what_they_do() -> None:
    seconds = {"mm": 3.0, "addmm": 1.0, "native_layer_norm": 2.0, "linalg_vector_norm": 0.5, "gelu": 1.0, "t": 0.25}
    assert step.grouped(seconds) == {
        "matrix products": 4.0,
        "normalisation": 2.0,
        step.OTHER: 1.0,
        "optimiser and clipping": 0.5,
        "views and allocation": 0.25,
    }
    assert step.group_of("_scaled_dot_product_flash_attention_for_cpu_backward") == "attention"
    assert step.group_of("convolution_backward") == "convolution"
    assert step.group_of("native_batch_norm_backward") == "normalisation"


def test_seconds_are_judged_against_flops() -> None:
    def turns(before: float, after: float) -> dict[str, list[dict[str, float]]]:
        return {
            name: [{"seconds": spent, "processor_seconds": spent, "flops": flops}]
            for name, spent, flops in (("before", before, 10.0), ("after", after, 4.0))
        }

    *_, met = step.switch_lines("vqa", turns(1.0, 0.42))
    assert (met.value, met.met) == ("1.05", True)
    *_, missed = step.switch_lines("vqa", turns(1.0, 0.5))
    assert (missed.value, missed.met) == ("1.25", False)
    with pytest.raises(Mt2stError, match="pairs = 0"):
        StepOptions(pairs=0)


def test_parallel_streams_are_judged_by_rate_and_by_loss() -> None:
    def both(parallel: float, loss: float) -> dict[str, Any]:
        turns = {"serial": [{"seconds": 1.3}] * 3, "parallel": [{"seconds": parallel}] * 3}
        return {"turns": turns, "losses": {"serial": [2.0, 1.0], "parallel": [2.0, loss]}}

    rate, parted = step.streams_lines("vqa", both(1.0, 1.0001))
    assert (rate.value, rate.met) == ("1.30 [1.30, 1.30]", True)
    assert (parted.value, parted.met) == ("1.0e-04", True)
    rate, parted = step.streams_lines("vqa", both(1.1, 1.1))
    assert (rate.met, parted.met) == (False, False)


def test_processes_that_train_one_run_answer_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_processes, "_MODULE", "tests.helpers.echo_steps")
    workers = step_processes.Workers("vqa", processes=2, threads=1)
    assert workers.block(5) == {"seconds": 2.0, "images": 50, "flops": 6}  # the slowest; the sum of their shares
    with pytest.raises(Mt2stError, match="a process of 2 that train one run ended"):
        workers.block(0)
    workers.close()


def test_processes_are_judged_against_threads() -> None:
    def turns(seconds: float) -> list[dict[str, float]]:
        return [{"seconds": seconds, "images": 100, "flops": 1}] * 3

    lines = step_processes.cores_lines("vqa", 2, {"threads": turns(1.0), "processes": turns(0.75)})
    assert [(line.value, line.met) for line in lines][-1] == ("1.33 [1.33, 1.33]", True)
    *_, missed = step_processes.cores_lines("vqa", 2, {"threads": turns(1.0), "processes": turns(0.9)})
    assert missed.met is False


def test_a_step_is_judged_against_another_checkouts() -> None:
    def found(ours: float, loss: float) -> dict[str, Any]:
        turns = {"ours": [{"seconds": ours}] * 3, "theirs": [{"seconds": 0.4}] * 3}
        first = {"ours": {"losses": [2.0, loss], "flops": 99}, "theirs": {"losses": [2.0, 1.0], "flops": 100}}
        commits = {"ours": None, "theirs": {"hash": "abcdef0123"}}
        return {"turns": turns, "steps": 10, "first_steps": first, "commits": commits}

    seconds, rate, flops, parted = step_against.against_lines("vqa", found(0.3, 1.00001))
    assert seconds.value == "30.0 [30.0, 30.0]"
    assert (rate.what, rate.value, rate.met) == ("vqa: rate / that of abcdef0", "1.33 [1.33, 1.33]", True)
    assert flops.value == "0.9900"
    assert (parted.value, parted.met) == ("1.0e-05", True)
    _, rate, _, parted = step_against.against_lines("vqa", found(0.4, 1.01))
    assert (rate.met, parted.met) == (False, False)


def test_another_checkout_runs_its_own_code(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match=r"is no checkout with benchmarks/speed/loop\.py"):
        step_against.first_steps("vqa", 1, tmp_path)
    (tmp_path / "mt2st").mkdir()
    (tmp_path / "mt2st" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "speed").mkdir(parents=True)
    for package in ("benchmarks", "benchmarks/speed"):  # whole packages, which no other one of the name hides
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "benchmarks" / "speed" / "loop.py").touch()
    (tmp_path / "benchmarks" / "cases.py").write_text("raise RuntimeError('an older layout')")
    with pytest.raises(Mt2stError, match="does not make a step of vqa: RuntimeError: an older layout"):
        step_against.first_steps("vqa", 1, tmp_path)
    made_up = """
class Loop:
    def __init__(self, case, threads): self.trainer = self.ledger = self; self.total = 7
    def losses(self, steps): return [0.5] * steps
"""
    (tmp_path / "benchmarks" / "speed" / "loop.py").write_text(made_up)
    (tmp_path / "benchmarks" / "cases.py").write_text(
        "class Card:\n    def knobs(self, name): pass\n    def open(self, knobs, console): pass\n"
        "def load_card(name): return Card()\n"
    )
    assert step_against.first_steps("vqa", 1, tmp_path) == {"losses": [0.5] * 20, "flops": 7}
    (tmp_path / "mt2st" / "__init__.py").write_text("__file__ = '/elsewhere/mt2st/__init__.py'")
    with pytest.raises(Mt2stError, match="another mt2st was imported"):
        step_against.first_steps("vqa", 1, tmp_path)


def test_the_forecast_of_a_plan_is_what_the_ledger_measures() -> None:
    """Shapes change at a quarter and at half of the training, and a task ends after three quarters."""

    def build() -> Experiment:
        encoder = tiny_encoder()
        made, tasks = streams(encoder), mixture(encoder, contrastive=Constant()).tasks
        return Experiment(
            encoder=encoder,
            primary=tasks["vqa"].objective,
            auxiliaries=[tasks["contrastive"].objective],
            streams={PRIMARY: made["primary"], AUXILIARY: made["captions"]},
            validate=dict,
            test=lambda: TestResult({}, {}),
        )

    settings = TrainSettings(patch_dropout=0.5, low_resolution_until=0.5, small_batch_until=0.25)
    costs = StepCosts(build, train=settings)
    assert costs.turns == (0.0, 0.25, 0.5)
    forecast = training_flops({"contrastive": Switch(at=0.75)}, costs.primary, costs, 8, seed=0)
    experiment = build()
    switching = mixture_of(experiment, lambda name: Switch(at=0.75))
    trainer = Trainer(experiment.encoder, switching, experiment.streams, TrainConfig(8, **vars(settings)))
    trainer.fit()
    assert trainer.ledger.total == forecast
    assert len(trainer.ledger.by_kind()) == 4
