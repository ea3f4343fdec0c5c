"""What a suite does with strategies: of other files, with a schedule for each auxiliary, with labels per seed."""

from __future__ import annotations

import gc
import io
import weakref
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.cases import load_card
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from benchmarks.cases.shared.suite_knobs import VIEWS
from benchmarks.cases.vqa import knobs as vqa
from benchmarks.commands._case import parse_knobs, run_case, run_suite
from benchmarks.records.read import load_records
from benchmarks.strategies import find_strategy
from benchmarks.strategies.aligned import Aligning
from benchmarks.strategies.flattening import Flattened
from benchmarks.strategies.forked import Forking
from benchmarks.strategies.switch import Switching
from benchmarks.suite import runner, train
from benchmarks.suite.plan import SuiteCosts, plan_runs
from benchmarks.suite.runs import open_case
from mt2st.errors import Mt2stError
from mt2st.flops import FlopLedger
from tests.unit.benchmarks.test_strategies import COSINE

DRAWN = Path(__file__).parents[1] / "helpers" / "drawn_dataset.py"
TINY = EncoderKnobs(width=16, embedding_width=16, fusion_width=16, stem_width=4, vocabulary_size=300)
CARD = load_card("vqa")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def my_fade(tmp_path: Path) -> str:
    path = tmp_path / "my_fade.py"
    path.write_text(COSINE)
    return f"{path}:Cosine"


def tiny(data_folder: Path, **changes: Any) -> vqa.Knobs:
    values = {
        "data": str(DRAWN),
        "data_folder": data_folder,
        "image_size": 16,
        "steps": 10,
        "seeds": 1,
        "validations": 2,
        "label_fraction": 0.5,
        "images_per_batch": 4,
        "questions_per_image": 2,
        "caption_images_per_batch": 8,
        "encoder": TINY,
        "auxiliaries": ("contrastive", "masked_lm"),
        "threads": 1,
        "views": VIEWS,
    }
    return vqa.Knobs(**{**values, **changes})


def run(knobs: vqa.Knobs, results: Path) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    code = run_case(CARD, knobs, "tiny", results, console)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def test_a_strategy_of_another_file_is_compared_with_the_built_in_ones(
    data_folder: Path, tmp_path: Path, my_fade: str
) -> None:
    knobs = tiny(data_folder, strategies=("STL", "MTL", my_fade), budgets=(0.5, 1.0))
    code, printed = run(knobs, tmp_path / "results")
    assert code == 0
    folder = tmp_path / "results" / "vqa" / "tiny"
    records = load_records(tmp_path / "results", "vqa", "tiny").finished
    cosine = [record for record in records if record.strategy == "Cosine"]
    assert {view for record in cosine for view in record.views} == {"equal-steps", "budget-0.5", "budget-1"}
    assert all(record.folder.name.startswith(("cosine-equal-", "cosine-budget-")) for record in cosine)
    assert len({record.values["config"]["strategy_code"] for record in cosine}) == 1
    fades = {record.strategy: record.values["fades"] for record in records}
    assert fades == {"STL": False, "MTL": False, "Cosine": True}, "who can bear the claim out"
    for text in (printed, (folder / "TABLE.md").read_text(), (folder / "report.html").read_text()):
        assert "Cosine" in text
    assert (folder / "budget-0-5.png").stat().st_size > 0


def test_a_finished_run_counts_for_what_a_later_command_plans_it_for(data_folder: Path, tmp_path: Path) -> None:
    """Static weights cost what MTL costs, so their run of full length is that of budget 1 as well."""

    def seen() -> dict[str, tuple[str, list[int], float]]:
        records = load_records(tmp_path, "vqa", "tiny").finished
        return {run.folder.name: (run.views, run.values.get("looks"), run.metric("vqa_accuracy")) for run in records}

    knobs = tiny(data_folder, strategies=("Static weights",), views=("equal-steps",))
    run(knobs, tmp_path)
    ((name, (views, looks, value)),) = seen().items()
    assert (views, looks) == (("equal-steps",), None)
    again = replace(knobs, views=("equal-steps", "equal-budget"), budgets=(1.0,), seeds=2, until_decided=True)
    assert "finished before" in run(again, tmp_path)[1]
    assert seen()[name] == (("equal-steps", "budget-1"), [2], value)
    assert len(seen()) == 2


def test_a_run_of_another_files_strategy_is_resumed_or_refused(
    data_folder: Path, tmp_path: Path, my_fade: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = tiny(data_folder, strategies=(my_fade,), views=("equal-steps",))
    step = train.Trainer.train_step

    def stopping(self: Any, at: int) -> Any:
        if at == 6:
            raise KeyboardInterrupt
        return step(self, at)

    monkeypatch.setattr(train.Trainer, "train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(knobs, tmp_path / "results")
    monkeypatch.setattr(train.Trainer, "train_step", step)
    (folder,) = (tmp_path / "results" / "vqa" / "tiny").glob("cosine-*")
    text = Path(my_fade.rpartition(":")[0])
    before = text.read_text()
    text.write_text(before + "\n# changed\n")
    with pytest.raises(Mt2stError, match="has changed since the run began"):
        runner.resume_run(folder)
    text.write_text(before)
    assert runner.resume_run(folder) == 0


def test_a_run_begun_by_an_older_version_is_refused_in_one_line(data_folder: Path, tmp_path: Path) -> None:
    from mt2st.files import read_sealed_json, write_sealed_json

    knobs = tiny(data_folder, strategies=("STL",), views=("equal-steps",), steps=2)
    assert run(knobs, tmp_path)[0] == 0
    (folder,) = (tmp_path / "vqa" / "tiny").glob("stl-*")
    (folder / "run.json").unlink()
    config = read_sealed_json(folder / "config.json", "")
    config["conditions"].pop("strategy_place")
    write_sealed_json(folder / "config.json", config)
    with pytest.raises(Mt2stError, match=r"begun by version 0\.1.*repeat the suite's command"):
        runner.resume_run(folder)


def test_each_auxiliary_ends_where_its_schedule_says_and_the_forecast_is_what_the_ledger_counts(
    data_folder: Path, tmp_path: Path
) -> None:
    switch = Switching(at={"contrastive": 0.7, "masked_lm": 0.3})
    knobs = tiny(data_folder, strategies=("MTL", "Switch"), settings=(switch,))
    case = open_case(CARD, knobs, Console(quiet=True))
    forecast = {(run.strategy, run.steps): run.flops for run in plan_runs(knobs, SuiteCosts(case, knobs))}
    assert run(knobs, tmp_path)[0] == 0
    records = load_records(tmp_path, "vqa", "tiny").finished
    assert {(record.strategy, record.steps): record.training_flops for record in records} == forecast
    (whole,) = [record for record in records if record.strategy == "Switch" and record.steps == 10]
    steps = {row["kind"].split("|")[0]: row["steps"] for row in whole.values["flops"]["by_kind"]}
    assert steps == {"vqa+contrastive+masked_lm": 3, "vqa+contrastive": 4, "vqa": 3}
    assert "0.7" in whole.values["schedules"]["contrastive"]
    assert "0.3" in whole.values["schedules"]["masked_lm"]
    assert whole.values["config"]["strategy"]["at"] == {"contrastive": 0.7, "masked_lm": 0.3}


def test_a_strategy_that_listens_gets_the_budget_and_no_more(data_folder: Path, tmp_path: Path) -> None:
    """Planned by budget, for its steps follow from what it hears; at equal steps the cost follows."""
    names = ("Flattening", "Forked", "Aligned")
    settings = (
        Flattened(threshold=1.0, patience=1, every=0.2, batches=1),
        Forking(margin=10.0, every=0.3, fork=0.1, batches=1, patience=1),
        Aligning(threshold=1.0, patience=1, every=0.2, batches=1),
    )
    knobs = tiny(data_folder, strategies=("MTL", *names), settings=settings, budgets=(0.8,))
    assert run(knobs, tmp_path)[0] == 0
    assert "listening %" in (tmp_path / "vqa" / "tiny" / "TABLE.md").read_text()
    records = load_records(tmp_path, "vqa", "tiny").finished
    (full,) = [record for record in records if record.strategy == "MTL" and "equal-steps" in record.views]
    for name in names:
        budgeted, whole = sorted(
            (record for record in records if record.strategy == name), key=lambda record: record.views[0]
        )
        assert budgeted.views == ("budget-0.8",)
        budget = int(0.8 * full.training_flops)
        assert budgeted.values["config"]["budget"] == budget
        most = max(row["flops_per_step"] for row in budgeted.values["flops"]["by_kind"])
        assert budget - most < budgeted.training_flops <= budget
        assert whole.steps == knobs.steps
        for record in (budgeted, whole):
            listening = record.values["flops"]["by_task"]["listening"]
            assert 0 < sum(listening.values()) < record.training_flops
            stopped = {row["task"]: row["progress"] for row in record.values["listening"] if row["stopped"]}
            assert stopped.keys() == {"contrastive", "masked_lm"}
            assert record.values["curve"][-1]["step"] == record.steps
            assert (record.folder / "config.json").exists()
    assert "skipped" in run(knobs, tmp_path)[1]
    (again,) = [record.folder for record in records if record.strategy == "Forked" and record.views[0] != "equal-steps"]
    assert runner.resume_run(again) == 0


def test_full_mtl_is_planned_beside_the_budgets(data_folder: Path) -> None:
    knobs = tiny(data_folder, strategies=("STL", "MTL"), views=("equal-budget",), budgets=(0.5,))
    costs = SuiteCosts(open_case(CARD, knobs, Console(quiet=True)), knobs)
    runs = [(run.strategy, *run.views) for run in plan_runs(knobs, costs)]
    assert runs == [("STL", "budget-0.5"), ("MTL", "budget-0.5"), ("MTL", "budget-1")]
    assert plan_runs(knobs, costs)[-1].steps == knobs.steps
    assert plan_runs(replace(knobs, budgets=(0.5, 1.0)), costs) == plan_runs(
        replace(knobs, budgets=(0.5, 1.0), full_mtl=False), costs
    ), "a budget of 1 is not planned twice"


def test_the_passes_of_balancers_are_in_budget_forecast_and_ledger(data_folder: Path, tmp_path: Path) -> None:
    names = ["MTL", "FAMO", "Uncertainty weighting"]
    if find_spec("torchjd") and find_spec("quadprog"):
        names += ["UPGrad", "PCGrad", "PCD"]
    at = {"contrastive": 1.0, "masked_lm": 0.5}
    settings = tuple(replace(find_strategy(name).kind(), at=at) for name in names[1:])
    knobs = tiny(data_folder, strategies=tuple(names), settings=settings, steps=6, budgets=(0.5,))
    case = open_case(CARD, knobs, Console(quiet=True))
    plan = plan_runs(knobs, SuiteCosts(case, knobs))
    assert run(knobs, tmp_path)[0] == 0
    records = load_records(tmp_path, "vqa", "tiny").finished
    assert len(records) == len(plan) == 2 * len(names)
    for each in plan:
        (record,) = [one for one in records if (one.strategy, one.steps) == (each.strategy, each.steps)]
        assert record.training_flops == each.flops, each.label
    whole = {record.strategy: record for record in records if record.steps == 6}
    a_step = {
        name: {row["kind"].split("|")[0]: row["flops_per_step"] for row in record.values["flops"]["by_kind"]}
        for name, record in whole.items()
    }
    everything = "vqa+contrastive+masked_lm"
    for name in names[1:]:
        assert set(a_step[name]) == {everything, "vqa+contrastive"}, "masked_lm ends"
        more = a_step[name][everything] / a_step["MTL"][everything]
        assert more == 1 if name == "Uncertainty weighting" else 1.1 < more < 2, name
    shares = {name: min(record.training_flops for record in records if record.strategy == name) for name in names}
    assert max(shares.values()) <= 0.5 * whole["MTL"].training_flops


def test_seeds_are_added_until_decided_or_to_the_limit(data_folder: Path, tmp_path: Path) -> None:
    settings = {"strategies": ("MTL", "Switch"), "budgets": (0.5,), "steps": 4, "until_decided": True}
    code, printed = run(tiny(data_folder, seeds=4, **settings), tmp_path)
    assert code == 0
    records = load_records(tmp_path, "vqa", "tiny").finished
    assert {tuple(record.values["looks"]) for record in records} == {(2, 4)}
    made = len({record.seed for record in records})
    assert made == (4 if "Undecided" in printed.split("raw records")[1] else made)
    assert made in (2, 4)
    assert "each interval is one of 97.50%" in " ".join(printed.split())
    with pytest.raises(Mt2stError, match="declares no margin"):
        run_suite(
            open_case(CARD, tiny(data_folder, **settings), Console(quiet=True)),
            tiny(data_folder, **settings),
            replace(vqa.SPEC, margin=None, margin_reason=""),
            **{"benchmark": "vqa", "recipe": "tiny", "results": tmp_path, "console": Console(quiet=True)},
        )


def test_seeds_auto_is_said_in_words() -> None:
    default = vqa.RECIPES["default"]
    for words in (["--seeds", "auto"], ["--seeds=auto"]):
        knobs = parse_knobs(default, [*words, "--steps", "7"], prog="vqa", description="")
        assert (knobs.seeds, knobs.until_decided, knobs.steps) == (16, True, 7)
    assert not parse_knobs(default, [], prog="vqa", description="").until_decided


def test_labels_are_drawn_per_seed_or_kept(data_folder: Path, tmp_path: Path) -> None:
    def labelled(draw: str, seed: int) -> list[str]:
        case = open_case(CARD, tiny(data_folder, draw=draw, seeds=2), Console(quiet=True))
        stream = case.build(seed).streams["primary"]
        ids: list[str] = stream.split.image_ids()  # type: ignore[attr-defined]
        return ids

    assert labelled("fixed", 0) == labelled("fixed", 1) == labelled("per-seed", 0)
    assert labelled("per-seed", 1) != labelled("per-seed", 0)
    knobs = tiny(data_folder, draw="per-seed", seeds=2, strategies=("MTL",), views=("equal-steps",), steps=2)
    assert run(knobs, tmp_path)[0] == 0
    for record in load_records(tmp_path, "vqa", "tiny").finished:
        assert record.values["config"]["knobs"]["draw"] == "per-seed"
        assert record.values["data"]["labelled_images"] > 0


def test_the_model_that_counts_step_costs_does_not_outlive_the_planning(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = tiny(data_folder, strategies=("MTL",), views=("equal-steps",), steps=2)
    built: list[weakref.ref[Any]] = []
    alive: list[int] = []
    case_class = type(open_case(CARD, knobs, Console(quiet=True)))
    build = case_class.build

    def watched(self: Any, seed: int) -> Any:
        gc.collect()
        alive.append(sum(reference() is not None for reference in built))
        experiment = build(self, seed)
        built.append(weakref.ref(experiment.encoder))
        return experiment

    monkeypatch.setattr(case_class, "build", watched)
    assert run(knobs, tmp_path)[0] == 0
    assert alive == [0, 0]  # one to count, one to train


def test_every_recipe_takes_its_threads(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    knobs = tiny(data_folder, strategies=("STL",), steps=2, views=("equal-steps",))
    run(knobs, tmp_path / "suite")
    run(tiny(data_folder, strategies=("MTL",), steps=2, budgets=(1.0,)), tmp_path / "budget")
    assert threads[::2] == [1, 1]  # the second of each pair is as it was before


def test_resuming_takes_its_threads(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = tiny(data_folder, strategies=("STL",), steps=2, views=("equal-steps",), threads=1)
    run(knobs, tmp_path)
    (run_dir,) = [path.parent for path in tmp_path.glob("vqa/tiny/*/run.json")]
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert runner.resume_run(run_dir) == 0
    assert threads[0] == 1  # the last one is as it was before


PLAIN = '''"""Fade: a schedule of a plain class."""

from dataclasses import dataclass


class Fading:
    def __init__(self, end: float) -> None:
        self.initial, self.end = 1.0, end

    def __call__(self, progress: float) -> float:
        return max(0.0, 1.0 - progress / self.end)


@dataclass(frozen=True)
class Fade:
    """Fade: weights fall along a line to zero."""

    learning_rate: float = 2e-3
    """peak learning rate"""
    end: float = 0.5
    """progress at which the weight is zero"""

    def schedule(self, auxiliary: str) -> Fading:
        return Fading(self.end)
'''


def test_the_record_says_what_a_plain_schedule_is_and_which_operations_count_nothing(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fade.py").write_text(PLAIN)
    knobs = tiny(data_folder, strategies=(str(tmp_path / "fade.py"),), views=("equal-steps",), steps=4)
    monkeypatch.setattr(FlopLedger, "unknown_operations", lambda self: {"lab.blend.default": 8})
    assert run(knobs, tmp_path)[0] == 0
    (record,) = load_records(tmp_path, "vqa", "tiny").finished
    text = record.values["schedules"]["contrastive"]
    assert '"end":0.5' in text
    assert "0x" not in text
    assert record.values["flops"]["unknown_operations"] == {"lab.blend.default": 8}
    table = (tmp_path / "vqa" / "tiny" / "TABLE.md").read_text()
    assert "leave out operations whose formula is not known: lab.blend.default" in table
