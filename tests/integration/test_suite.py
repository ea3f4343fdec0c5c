"""The VQA suite end to end on a drawn set: records, budgets, skipping, resuming to the same bits, holes, the report."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, call

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.cases import AUXILIARY
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from benchmarks.cases.shared.suite_knobs import VIEWS
from benchmarks.cases.vqa import knobs as vqa
from benchmarks.cases.vqa.case import VqaCase
from benchmarks.cases.vqa.grading import answer_type, language_prior
from benchmarks.commands._case import run_suite
from benchmarks.records.examples import read_examples
from benchmarks.records.folder import RunFolder
from benchmarks.records.read import load_records
from benchmarks.suite import runner, train
from data_prep.prepare import prepare
from mt2st.data.card import Example
from mt2st.errors import Mt2stError
from mt2st.training.config import TrainSettings
from tests.helpers import drawn_dataset

DRAWN = Path(__file__).parents[1] / "helpers" / "drawn_dataset.py"
TINY = EncoderKnobs(width=16, embedding_width=16, fusion_width=16, stem_width=4, vocabulary_size=300)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def tiny_knobs(data_folder: Path, **changes: Any) -> vqa.Knobs:
    values = {
        "data": str(DRAWN), "data_folder": data_folder, "image_size": 16, "steps": 12, "seeds": 1, "validations": 2,
        "label_fraction": 0.5, "images_per_batch": 4, "questions_per_image": 2, "caption_images_per_batch": 8,
        "encoder": TINY, "auxiliaries": ("contrastive", "masked_lm"), "threads": 1, "views": VIEWS,
    }  # fmt: skip
    training = {name: changes.pop(name) for name in ("checkpoint_every_steps",) if name in changes}
    return vqa.Knobs(**{**values, "train": TrainSettings(**training), **changes})


def run(knobs: vqa.Knobs, results: Path) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    code = run_suite(
        VqaCase(knobs, console), knobs, vqa.SPEC, benchmark="vqa", recipe="tiny", results=results, console=console
    )
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def test_suite_writes_records_and_a_report(data_folder: Path, tmp_path: Path) -> None:
    knobs = tiny_knobs(data_folder, budgets=(0.44, 1.0))
    code, printed = run(knobs, tmp_path)
    assert code == 0
    records = load_records(tmp_path, "vqa", "tiny").finished
    assert {record.strategy for record in records} == set(knobs.strategies)
    by_view: dict[str, dict[str, Any]] = {view: {} for view in ("equal-steps", "budget-0.44", "budget-1")}
    for record in records:
        for view in record.views:
            by_view[view][record.strategy] = record
    flops = {name: record.training_flops for name, record in by_view["equal-steps"].items()}
    assert flops["STL"] < flops["Switch"] < flops["MTL"]
    assert {record.steps for record in by_view["equal-steps"].values()} == {12}
    for share in knobs.budgets:
        budget = share * flops["MTL"]
        assert set(by_view[f"budget-{share:g}"]) == set(knobs.strategies)
        for name, record in by_view[f"budget-{share:g}"].items():
            assert record.training_flops <= budget, name
            assert record.training_flops > budget - flops["MTL"] / 12 - 1, name
    record = by_view["equal-steps"]["MTL"]
    assert by_view["budget-1"]["MTL"] is record, "full MTL is trained once"
    assert record.training_flops == sum(sum(phases.values()) for phases in record.values["flops"]["by_task"].values())
    assert len(record.items["score"]) == 40
    assert record.metric("vqa_accuracy") == pytest.approx(float(record.items["score"].mean()))
    examples = read_examples(record.folder)
    assert examples is not None
    assert [example.item for example in examples.items] == list(range(40)), "as many as there are, up to 60"
    assert [example.score for example in examples.items] == record.items["score"].tolist()
    kinds = record.values["group_names"]["question_type"]
    assert [example.kind for example in examples.items] == [kinds[code] for code in record.items["question_type"]]
    answers = (record.folder / "answers.txt").read_text().splitlines()
    assert [example.given for example in examples.items] == [answers[code] for code in record.items["prediction"]]
    assert {key for example in examples.items for key in example.pictures} == set(examples.pictures)
    assert set(record.values["floors"]) == {"ridge", "language prior", "chance"}
    for name in ("commit", "versions", "hardware", "data", "phases_seconds", "peak_memory_bytes"):
        assert name in record.values, name
    folder = tmp_path / "vqa" / "tiny"
    for name in ("TABLE.md", "report.html", "budget-0-44.png"):
        assert (folder / name).stat().st_size > 0, name
    assert "language prior" in printed
    page = (folder / "report.html").read_text()
    assert page.count("<li class='item'") == 40
    assert "What the model is asked" in page

    code, printed = run(knobs, tmp_path)
    assert code == 0
    assert printed.count("finished before, skipped") == len(records)


def test_interrupted_and_resumed_run_is_identical(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = tiny_knobs(data_folder, strategies=("Switch",), views=("equal-steps",), checkpoint_every_steps=1)
    assert run(knobs, tmp_path / "whole")[0] == 0
    step = train.Trainer.train_step
    switch_step = round(knobs.strategy("Switch").at * knobs.steps)
    for stop_at in (2, switch_step, 11):  # before, on and after the switch

        def stopping(self: Any, at: int, stop_at: int = stop_at) -> Any:
            if at == stop_at:
                raise KeyboardInterrupt
            return step(self, at)

        results = tmp_path / f"stopped-{stop_at}"
        monkeypatch.setattr(train.Trainer, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(knobs, results)
        monkeypatch.setattr(train.Trainer, "train_step", step)
        (interrupted,) = (results / "vqa" / "tiny").glob("switch-*")
        assert RunFolder.existing(interrupted).status() == "interrupted"
        assert run(knobs, results)[0] == 0
        assert outcome(results) == outcome(tmp_path / "whole"), stop_at


def outcome(results: Path) -> dict[str, Any]:
    """What must not differ by a bit between an interrupted and an uninterrupted run."""
    (record,) = load_records(results, "vqa", "tiny").finished
    (folder,) = (results / "vqa" / "tiny").glob("switch-*")
    weights = folder / "weights.safetensors"
    curve = [{key: value for key, value in row.items() if key != "seconds"} for row in record.curve]
    items = {name: array.tobytes() for name, array in record.items.items()}
    return {
        "weights": weights.read_bytes(),
        "flops": record.values["flops"],
        "curve": curve,
        "items": items,
        "metrics": record.values["metrics"],
    }


def test_resume_command_gives_what_the_suite_would_have_given(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "test_split": "train",
        "validation_fraction": 0.3,
        "on_leak": "allow",
        "data_workers": 1,
    }  # what config's hash leaves out, too
    knobs = tiny_knobs(data_folder, strategies=("Switch",), views=("equal-steps",), checkpoint_every_steps=4, **changes)
    assert run(knobs, tmp_path / "whole")[0] == 0
    step = train.Trainer.train_step

    def stopping(self: Any, at: int) -> Any:
        if at == 6:
            raise KeyboardInterrupt
        return step(self, at)

    monkeypatch.setattr(train.Trainer, "train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(knobs, tmp_path / "killed")
    monkeypatch.setattr(train.Trainer, "train_step", step)
    (folder,) = (tmp_path / "killed" / "vqa" / "tiny").glob("switch-*")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", threads := MagicMock())
    assert runner.resume_run(folder) == 0
    assert threads.call_args_list[0] == call(1)
    assert not (tmp_path / "data").exists()  # the data were found where the command had put them
    assert RunFolder.existing(folder).state() == "finished"
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_failed_seed_leaves_a_hole_and_the_others_go_on(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = tiny_knobs(data_folder, strategies=("STL", "MTL"), views=("equal-steps",), seeds=2)
    step = train.Trainer.train_step

    def failing(self: Any, at: int) -> Any:
        if self.config.seed == 1 and len(self.mixture.weights(0, 12, seed=1)) == 1:
            raise RuntimeError("the disk of this test is on fire")
        return step(self, at)

    monkeypatch.setattr(train.Trainer, "train_step", failing)
    code, printed = run(knobs, tmp_path)
    assert code == 1
    records = load_records(tmp_path, "vqa", "tiny")
    assert len(records.finished) == 3
    assert [hole.strategy for hole in records.holes] == ["STL"]
    assert "the disk of this test is on fire" in printed
    (log,) = (tmp_path / "vqa" / "tiny").glob("stl-*-s1-*/log.txt")
    assert "RuntimeError" in log.read_text()


def test_leaked_images_are_dropped_and_counted(data_folder: Path) -> None:
    case = VqaCase(tiny_knobs(data_folder, test_split="train", train_split="test"), Console(quiet=True))
    assert case.data["training_images_dropped_for_being_in_test"] == 0
    with pytest.raises(Mt2stError, match=r"60 training images .* --on-leak drop"):
        VqaCase(tiny_knobs(data_folder, test_split="train"), Console(quiet=True))
    with pytest.raises(Mt2stError, match="empty"):  # all of them are in the test split
        VqaCase(tiny_knobs(data_folder, test_split="train", on_leak="drop"), Console(quiet=True))


def test_leaked_images_that_are_allowed_are_said(data_folder: Path, tmp_path: Path) -> None:
    knobs = tiny_knobs(
        data_folder, test_split="train", on_leak="allow", strategies=("STL",), views=("equal-steps",), steps=2
    )
    code, printed = run(knobs, tmp_path)
    assert code == 0
    assert "60 training images are in the test split as well (--on-leak allow)" in " ".join(printed.split())


def test_a_set_without_captions_learns_from_its_questions(data_folder: Path, tmp_path: Path) -> None:
    folder = colours(tmp_path, lambda example: {"question": example.question, "answers": example.answers[0].text})
    knobs = tiny_knobs(data_folder, data=str(folder), strategies=("MTL",), views=("equal-steps",), steps=2)
    case = VqaCase(knobs, Console(quiet=True))
    assert case.data["training_captions"] == 0
    batch = case.build(0).streams[AUXILIARY].batch(0)
    assert (
        len(np.unique(batch["caption_tokens"].numpy(), axis=0)) == 2
    )  # "what colour is it?" and "which shape is it?", no answers
    assert sorted(set(batch["caption_group"].tolist())) == [0, 1]
    code, printed = run(knobs, tmp_path / "results")
    assert code == 0
    assert "easy-VQA has no captions" not in printed


def test_a_prepared_folder_takes_no_settings_of_preparing(data_folder: Path) -> None:
    folder = prepare(str(DRAWN), out=data_folder, image_size=16)
    with pytest.raises(Mt2stError, match="--image-size 16"):
        VqaCase(tiny_knobs(data_folder, data=str(folder), image_size=32), Console(quiet=True))
    with pytest.raises(Mt2stError, match="come too late"):
        VqaCase(tiny_knobs(data_folder, data=str(folder), options=("a=b",)), Console(quiet=True))
    with pytest.raises(Mt2stError, match="'a' is not NAME=VALUE"):
        tiny_knobs(data_folder, options=("a",))


def test_unknown_auxiliary_and_dataset(data_folder: Path) -> None:
    with pytest.raises(Mt2stError, match="did you mean 'contrastive'"):
        tiny_knobs(data_folder, auxiliaries=("contrastiv",))
    with pytest.raises(Mt2stError, match="easy_vqa"):
        VqaCase(tiny_knobs(data_folder, data="easy_vqaa"), Console(quiet=True))


def colours(place: Path, columns: Callable[[Example], dict[str, Any]]) -> Path:
    """The drawn set as image folders with a table of these columns."""
    for split in ("train", "test"):
        (place / "colours" / split).mkdir(parents=True)
        rows = []
        for number, example in enumerate(drawn_dataset.examples(split)):
            name = f"{number // 2}.png"
            (place / "colours" / split / name).write_bytes(example.image)  # type: ignore[arg-type]
            rows.append({"file_name": name, **columns(example)})
        (place / "colours" / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place / "colours"


def test_tables_with_other_columns_need_no_code(data_folder: Path, tmp_path: Path) -> None:
    folder = colours(
        tmp_path, lambda example: {"q": example.question, "a": example.answers[0].text, "words": list(example.captions)}
    )
    knobs = tiny_knobs(
        data_folder,
        data=str(folder),
        map="image=file_name,question=q,answers=a,captions=words",
        strategies=("STL",),
        steps=2,
    )
    code, _ = run(knobs, tmp_path / "results")
    assert code == 0
    assert VqaCase(knobs, Console(quiet=True)).data["training_captions"] == 54  # of 60, less the tenth for validation


def test_floors() -> None:
    prior = language_prior(
        ["a?", "a?", "b?"], [("yes",), ("yes",), ("no",)], ["a?", "b?", "never seen?"], ["no", "yes"]
    )
    assert prior.tolist() == [1, 0, 1]
    assert [answer_type(answers) for answers in (("Yes", "yes", "no"), ("12",), ("cat",), ())] == [
        "yes/no",
        "number",
        "other",
        "unlabelled",
    ]


def test_smoke_is_the_same_recipe_in_small() -> None:
    small = vqa.smoke(vqa.RECIPES["default"])
    whole = vqa.RECIPES["default"]
    assert (
        replace(small, steps=1, seeds=1, validations=1).shared()
        == replace(whole, steps=1, seeds=1, validations=1).shared()
    )
    assert json.dumps(small.shared())
    assert small.budgets == (0.44,)
