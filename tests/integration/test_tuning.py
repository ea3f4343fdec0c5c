"""`tune` on a tiny VQA: even, on validation alone, from MTL's best, interrupted and not, with one job and with two."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cases import load_card
from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.cases.shared.suite_knobs import from_plain
from benchmarks.cases.vqa.case import VqaCase
from benchmarks.strategies.diminish import Diminishing
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.stl import SingleTask
from benchmarks.strategies.switch import Switching
from benchmarks.strategies.thinned import Thinning
from benchmarks.suite import train
from benchmarks.suite.tuning import Effort, as_python, auxiliaries_share, not_taken, search, why_degenerate
from mt2st.errors import Mt2stError
from tests.integration.test_strategies_in_a_suite import tiny
from tests.unit.benchmarks.test_strategies import COSINE

CARD = load_card("vqa")
EFFORT = Effort(trials=3, most_trials=3, seeds=1)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def knobs_of(data_folder: Path, **changes: Any) -> Any:
    own = {"strategies": ("MTL", "Switch"), "steps": 8, "budgets": (0.5, 1.0), "seeds": 3, "draw": "fixed"}
    return tiny(data_folder, **{**own, "where": JobKnobs(jobs=1), **changes})


def log_of(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "vqa" / "tiny" / "tuning.json").read_text())
    return found


def trials_of(log: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [trial for trial in log["trials"] if trial["strategy"] == name]


def test_every_strategy_gets_as_many_trials_on_seeds_that_are_not_reported_and_the_test_is_not_read(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = VqaCase.build

    def untested(self: Any, seed: int) -> Any:
        def test() -> None:
            raise AssertionError("the test split was read")

        return replace(build(self, seed), test=test)

    monkeypatch.setattr(VqaCase, "build", untested)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    path = tmp_path / "my_fade.py"
    path.write_text(COSINE)
    knobs = knobs_of(data_folder, strategies=("STL", "MTL", "Switch", str(path)), steps=4)
    assert search(CARD, knobs, "tiny", tmp_path, replace(EFFORT, trials=2, most_trials=2)) == 0
    assert threads[0] == 1
    log = log_of(tmp_path)
    assert Counter(trial["strategy"] for trial in log["trials"]) == dict.fromkeys(("STL", "MTL", "Switch", "Cosine"), 2)
    for trial in log["trials"]:
        assert {run["seed"] for run in trial["runs"]} == {1000}
        assert sorted(view for run in trial["runs"] for view in run["views"]) == ["budget-0.5", "budget-1"]
        assert trial["score"] == pytest.approx(sum(run["score"] for run in trial["runs"]) / len(trial["runs"]))
    first = {trial["strategy"]: trial["settings"] for trial in reversed(log["trials"])}
    best = log["best"]["MTL"]
    for name in ("Switch", "Cosine"):
        assert {key: first[name][key] for key in best} == best, "they start from MTL's best rate and weight"
    assert first["STL"]["learning_rate"] == best["learning_rate"]
    table = (tmp_path / "vqa" / "tiny" / "tuning.md").read_text()
    assert "2 trials of every strategy" in table
    assert table.count("| best |") == 4
    assert f"{log['python']['Switch']}," in table
    assert not list(tmp_path.rglob("checkpoints")), "nothing but records is kept"


def test_an_interrupted_search_goes_on_and_more_trials_go_on_from_fewer(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = knobs_of(data_folder, budgets=(1.0,), steps=4)
    assert search(CARD, knobs, "tiny", tmp_path / "whole", EFFORT) == 0
    fit, calls = train.Trainer.fit, [0]

    def counted(self: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return fit(self)

    monkeypatch.setattr(train.Trainer, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        search(CARD, knobs, "tiny", tmp_path / "cut", EFFORT)
    assert search(CARD, knobs, "tiny", tmp_path / "cut", EFFORT) == 0
    assert calls[0] == 2 * 3 + 1, "what was finished is not repeated"
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    calls[0] = 100
    assert search(CARD, knobs, "tiny", tmp_path / "cut", EFFORT) == 0
    assert calls[0] == 100
    assert search(CARD, knobs, "tiny", tmp_path / "cut", replace(EFFORT, most_trials=4)) == 0
    more = log_of(tmp_path / "cut")["trials"]
    assert len({sum(trial["strategy"] == name for trial in more) for name in ("MTL", "Switch")}) == 1, "even"
    assert [trial for trial in more if trial["number"] <= 3] == log_of(tmp_path / "whole")["trials"]


def test_two_jobs_write_the_log_that_one_job_writes(data_folder: Path, tmp_path: Path) -> None:
    effort = Effort(trials=1, most_trials=1, seeds=1)
    for jobs in (1, 2):
        knobs = knobs_of(data_folder, strategies=("MTL",), where=JobKnobs(jobs=jobs))
        assert search(CARD, knobs, "tiny", tmp_path / str(jobs), effort) == 0
    assert log_of(tmp_path / "1") == log_of(tmp_path / "2")


def test_a_trial_that_fails_counts_and_is_shown_and_a_first_one_ends_the_search(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = train.Trainer.fit

    def failing(self: Any) -> Any:
        if self.config.learning_rate == 4e-3:
            raise Mt2stError("the loss is NaN")
        return fit(self)

    monkeypatch.setattr(train.Trainer, "fit", failing)
    knobs = knobs_of(data_folder, strategies=("MTL",), budgets=(1.0,))
    assert search(CARD, knobs, "tiny", tmp_path, EFFORT) == 0
    failed = log_of(tmp_path)["trials"][1]
    assert (failed["settings"]["learning_rate"], failed["score"]) == (4e-3, None)
    assert failed["runs"][0]["failed"] == "the loss is NaN"
    assert log_of(tmp_path)["best"]["MTL"]["learning_rate"] != 4e-3
    knobs = knobs_of(data_folder, strategies=("Switch",), budgets=(1.0,), settings=(MultiTask(4e-3),))
    with pytest.raises(Mt2stError, match=r"first trial of Switch, learning_rate=0\.004 .* failed: the loss is NaN"):
        search(CARD, knobs, "tiny", tmp_path / "alone", EFFORT)  # MTL is not searched: from the recipe's settings


def test_a_log_of_other_knobs_is_kept(data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    effort = Effort(trials=1, most_trials=1, seeds=1)
    for steps in (2, 3, 2):
        knobs = knobs_of(data_folder, strategies=("MTL",), budgets=(1.0,), steps=steps)
        assert search(CARD, knobs, "tiny", tmp_path, effort) == 0
    folder = tmp_path / "vqa" / "tiny"
    assert len(list(folder.glob("tuning*.json"))) == len(list(folder.glob("tuning*.md"))) == 3
    assert capsys.readouterr().out.count("was made with other knobs, data or seeds; kept as") == 2


def test_the_settings_of_the_recipe_are_a_trial_if_asked_for(data_folder: Path, tmp_path: Path) -> None:
    own = Switching(0.003, 2.0, at=0.3)
    knobs = knobs_of(data_folder, budgets=(1.0,), settings=(own,), steps=4)
    effort = Effort(trials=2, most_trials=2, seeds=1)
    for with_recipe in (False, True):
        assert search(CARD, knobs, "tiny", tmp_path, replace(effort, with_recipe=with_recipe)) == 0
        tried = [from_plain(Switching, trial["settings"]) for trial in trials_of(log_of(tmp_path), "Switch")]
        assert (tried[1] == own) is with_recipe
        assert len(tried) == len(trials_of(log_of(tmp_path), "MTL")) == 2


class MadeUpCosts:
    """Two auxiliaries that cost half of MTL."""

    primary, auxiliaries = "vqa", ("a", "b")

    def __call__(self, active: tuple[str, ...], progress: float) -> int:
        return 1 + len(active)


@pytest.mark.parametrize(
    ("settings", "usual", "degenerate"),
    [
        (Diminishing(rate=3.0), Diminishing(), True),  # cut off at 99.9 % of the steps: it costs what MTL costs
        (Diminishing(rate=1.0), Diminishing(), True),  # never cut off
        (Diminishing(rate=4.0), Diminishing(), False),
        (Switching(at=0.96), Switching(), True),
        (Switching(at=0.9), Switching(), False),
        (Switching(at=0.01), Switching(), True),  # STL
        (Thinning(share=0.99), Thinning(), True),
        (MultiTask(weight=9.0), MultiTask(), False),
        (SingleTask(), SingleTask(), False),
    ],
)
def test_settings_that_cost_what_mtl_or_stl_cost_are_degenerate(settings: Any, usual: Any, degenerate: bool) -> None:
    shares = [auxiliaries_share(each, MadeUpCosts(), 1000, 0) for each in (settings, usual)]
    assert bool(why_degenerate(*shares)) == degenerate


def test_the_share_of_the_auxiliaries_is_that_of_their_flops() -> None:
    assert auxiliaries_share(Switching(at=0.25), MadeUpCosts(), 1000, 0) == 0.25
    one_each = Switching(at={"a": 0.2, "b": 0.6})
    assert auxiliaries_share(one_each, MadeUpCosts(), 1000, 0) == pytest.approx(0.4)


def test_reported_seeds_are_refused(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="first_seed = 2 is one of the 3 seeds that are reported"):
        search(CARD, knobs_of(data_folder), "tiny", tmp_path, replace(EFFORT, first_seed=2))
    for change, message in (({"trials": 0}, "trials = 0"), ({"seeds": 0}, "seeds = 0"), ({"trials": 9}, "at least")):
        with pytest.raises(Mt2stError, match=message):
            replace(EFFORT, **change)


def test_settings_as_python_are_settings_again_and_recipes_are_compared_with_a_log(data_folder: Path) -> None:
    tuned = Switching(0.003, {"contrastive": 0.5, "masked_lm": 1.0}, at=0.55)
    line = as_python(tuned)
    assert line == "Switching(learning_rate=0.003, weight={'contrastive': 0.5, 'masked_lm': 1.0}, at=0.55)"
    log = {"best": {"Switch": {"learning_rate": 0.003, "weight": {"contrastive": 0.5, "masked_lm": 1.0}, "at": 0.55}}}
    assert not_taken(log, tiny(data_folder, settings=(tuned,))) == []
    (why,) = not_taken(log, tiny(data_folder, settings=(replace(tuned, at=0.4),)))
    assert why.startswith("Switch: the recipe has Switching(learning_rate=0.003, weight=")
