"""`mt2st.load` on runs of pictures, glosses and diffusion: the numbers of the run's own test, from its folder alone."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file

import mt2st
from benchmarks.cases import load_card
from benchmarks.cases.diffusion.case import sampled
from benchmarks.cases.shared.encoder_knobs import VitKnobs
from benchmarks.cases.text.knobs import BertKnobs
from benchmarks.commands._case import run_suite
from mt2st.trained.weights import load_parts
from tests.helpers import checkpoints
from tests.helpers.unimodal import CASES

Trained = tuple[Any, Path]
Train = Callable[..., Trained]


@pytest.fixture
def trained(tmp_path: Path) -> Train:
    """A case, and a finished run of it, moved to where its data are not."""

    def make(name: str, **settings: Any) -> Trained:
        case_name = name.partition("/")[0]
        console = Console(file=io.StringIO())
        knobs = replace(CASES[name](tmp_path), data_folder=tmp_path / "data", steps=4, seeds=1, validations=1)
        knobs = replace(knobs, **settings, strategies=("MTL",), views=("equal-steps",), draw="fixed")
        card = load_card(case_name)
        case: Any = card.open(knobs, console)
        results = tmp_path / "results"
        assert (
            run_suite(case, knobs, card.spec, benchmark=case_name, recipe="default", results=results, console=console)
            == 0
        )
        (run,) = (results / case_name / "default").glob("mtl-*")
        return case, Path(shutil.move(run, tmp_path / "elsewhere"))

    return make


def pictures(split: Any) -> list[np.ndarray]:
    return list(split.pixels(np.arange(split.num_images)))


def check_pairs(model: Any, run: Path, items: list[Any], asked: Any) -> None:
    """`same` of every test pair is what the run's own test found."""
    first, second = ([items[row] for row in side] for side in asked.test.rows.T)
    found = model.same_all(first, second)
    kept = load_file(run / "items.safetensors")
    assert (found > 0.5).astype(np.int64).tolist() == kept["prediction"].tolist()
    assert np.maximum(found, 1 - found) == pytest.approx(kept["confidence"], abs=1e-5)
    assert model.same(first[0], second[0]) == pytest.approx(float(found[0]), abs=1e-5)
    with pytest.raises(mt2st.Mt2stError, match="was trained to compare two items"):
        model.classify(items[0])
    with pytest.raises(mt2st.Mt2stError, match="1 first and 2 second items"):
        model.same_all(items[:1], items[:2])


def check_classes(model: Any, run: Path, items: list[Any]) -> None:
    """`classify` of every test item is what the run's own test found."""
    found = [best[0] for best in model.classify_all(items)]
    kept = load_file(run / "items.safetensors")
    assert [model.classes.index(best.name) for best in found] == kept["prediction"].tolist()
    assert [best.probability for best in found] == pytest.approx(kept["confidence"], abs=1e-5)
    every = model.classify(items[0], top=99)
    assert len(every) == len(model.classes)
    assert sum(each.probability for each in every) == pytest.approx(1, abs=1e-5)
    with pytest.raises(mt2st.Mt2stError, match="was trained to name the class"):
        model.same(items[0], items[1])


def test_pictures_are_compared_as_in_the_runs_own_test(trained: Train, tmp_path: Path) -> None:
    case, run = trained("image/same_class")
    model = mt2st.load(run, device="cpu")
    items = pictures(case.test_split)
    check_pairs(model, run, items, case.question._asked)
    Image.fromarray(items[0]).save(tmp_path / "one.png")
    found = model.embed_images([tmp_path / "one.png", items[0]])
    assert found.shape == (2, 16)
    assert (found[0] == found[1]).all()
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_pictures_are_classified_as_in_the_runs_own_test(trained: Train) -> None:
    case, run = trained("image")
    check_classes(mt2st.load(run, device="cpu"), run, pictures(case.test_split))


@pytest.mark.parametrize("name", ["text", "representation"])
def test_glosses_are_classified_as_in_the_runs_own_test(trained: Train, name: str) -> None:
    case, run = trained(name)
    check_classes(mt2st.load(run, device="cpu"), run, case.glosses.test.texts)


@pytest.mark.parametrize("name", ["text/same_class", "representation/same_class"])
def test_glosses_are_compared_as_in_the_runs_own_test(trained: Train, name: str) -> None:
    case, run = trained(name)
    model = mt2st.load(run, device="cpu")
    texts = case.glosses.test.texts
    check_pairs(model, run, texts, case.glosses.question._asked)
    assert model.embed_texts(texts).shape == (len(texts), model.embedding_width)
    if name.startswith("text"):
        with pytest.raises(mt2st.Mt2stError, match="has subwords, not words; use embed_texts"):
            model.embed_words(["animal"])
        return
    table = load_file(run / "weights.safetensors")["encoder.table.weight"]
    word = case.vocabulary.words[3]
    expected = table[3] / np.linalg.norm(table[3])
    assert np.allclose(model.embed_words([word, word]), expected, atol=1e-6)
    with pytest.raises(mt2st.Mt2stError, match="'zebrafish' is none of the"):
        model.embed_words(["zebrafish"])


def test_pictures_are_generated_as_in_the_runs_own_test(trained: Train) -> None:
    case, run = trained("diffusion")
    model = mt2st.load(run, device="cpu")
    labels = [case.names[code] for code in case.asked.tolist()]
    found = model.generate(labels)
    assert found.shape == (12, 8, 8, 3)
    assert (found == model.generate(labels)).all()
    assert (found != model.generate(labels, seed=1)).any()
    experiment = case.build(0)  # other weights, until those of the run are loaded
    load_parts(mt2st.trained.read_description(run), experiment.encoder, None)
    assert torch.equal(torch.from_numpy(found).permute(0, 3, 1, 2), sampled(experiment.encoder, case.asked, 2))
    with pytest.raises(mt2st.Mt2stError, match="label"):
        model.generate(["no such label"])


def test_a_picture_checkpoint_is_built_from_the_runs_folder(trained: Train, tmp_path: Path) -> None:
    vit = VitKnobs(model=f"hf:{checkpoints.vit(tmp_path / 'vit')}")
    case, run = trained("image", encoder=vit, image_size=16)
    shutil.rmtree(tmp_path / "vit")
    check_classes(mt2st.load(run, device="cpu"), run, pictures(case.test_split))


def test_a_text_checkpoint_is_built_from_the_runs_folder(trained: Train, tmp_path: Path) -> None:
    """Its upper layer by LoRA, below a new hidden layer."""
    name = f"hf:{checkpoints.bert(tmp_path / 'bert')}"
    case, run = trained("text", encoder=BertKnobs(model=name, hidden_width=12, lora_rank=2, context_length=10))
    shutil.rmtree(tmp_path / "bert")
    check_classes(mt2st.load(run, device="cpu"), run, case.glosses.test.texts)
