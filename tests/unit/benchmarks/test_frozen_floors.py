"""Floors from frozen embeddings: whose weights they read, what they learn, and how they rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.cases.retrieval import knobs as retrieval
from benchmarks.cases.retrieval.captions import captions_of
from benchmarks.cases.retrieval.case import RetrievalCase
from benchmarks.cases.retrieval.floors import FrozenFloor, _cross_entropy
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from benchmarks.cases.shared.frozen_features import FrozenFeatures, frozen_features
from benchmarks.cases.vqa import knobs as vqa
from benchmarks.cases.vqa.case import VqaCase
from data_prep.prepare import prepare
from mt2st.data.splits import PreparedDataset
from mt2st.encoders.factory import make_towers
from mt2st.encoders.vision_language import VisionLanguageEncoder
from tests.helpers import checkpoints, drawn_dataset

TEXTS = ["a red circle", "a blue circle", "a red square", "a blue square"]
COMPONENTS = (4, 8)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    place = Path(drawn_dataset.__file__)
    return PreparedDataset.open(prepare(place, out=tmp_path_factory.mktemp("drawn"), image_size=16, workers=0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def encoder_of(towers: str) -> VisionLanguageEncoder:
    torch.manual_seed(0)
    return VisionLanguageEncoder(make_towers(towers))


def pair(folder: Path) -> str:
    vision, text = folder / "vit", folder / "bert"
    if not text.exists():
        checkpoints.vit(vision)
        checkpoints.bert(text)
    return f"hf:{vision}+{text}"


def spoiled(encoder: VisionLanguageEncoder) -> VisionLanguageEncoder:
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    return encoder


def test_a_trained_half_is_read_as_it_came_and_a_frozen_one_from_the_run(folder: Path, drawn: PreparedDataset) -> None:
    towers = pair(folder)
    train, fresh = drawn.split("train"), encoder_of(towers)
    made: list[int] = []

    def make() -> VisionLanguageEncoder:
        made.append(1)
        return encoder_of(towers)

    def features(encoder: VisionLanguageEncoder, *freeze: str) -> FrozenFeatures:
        knobs = EncoderKnobs(towers=towers, freeze=freeze)
        found = frozen_features(knobs, encoder, make, fresh.towers.tokenize, train, TEXTS, COMPONENTS)
        assert found is not None
        return found

    expected = features(fresh, "image", "text")
    assert not made
    assert expected.texts(TEXTS).shape == (4, 4)  # four texts have four components at most
    assert expected.images(train).shape == (train.num_images, 4)
    trained = spoiled(encoder_of(towers))
    found = features(trained)
    assert made
    np.testing.assert_allclose(found.texts(TEXTS), expected.texts(TEXTS), atol=1e-5)
    np.testing.assert_allclose(found.images(train), expected.images(train), atol=1e-5)
    half = features(trained, "image")  # only the texts' half is made anew
    np.testing.assert_allclose(half.texts(TEXTS), expected.texts(TEXTS), atol=1e-5)
    assert np.ptp(half.images(train), axis=0).max() < 1e-6


def test_a_half_that_is_no_checkpoint_is_read_as_pixels_or_words(folder: Path, drawn: PreparedDataset) -> None:
    towers = pair(folder)
    halves = encoder_of(towers).parts()
    train, tokenize = drawn.split("train"), encoder_of(towers).towers.tokenize
    words = FrozenFeatures({"image": halves["image"]}, tokenize, train, TEXTS, COMPONENTS).texts(TEXTS)
    assert len(np.unique(words.round(4), axis=0)) == 4
    pixels = FrozenFeatures({"text": halves["text"]}, tokenize, train, TEXTS, COMPONENTS).images(train)
    np.testing.assert_allclose(pixels.std(0), 1.0, rtol=0.05)


def test_cross_entropy_is_torchs_and_so_is_its_slope() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 6))).requires_grad_()
    same = torch.eye(6, dtype=torch.float64)
    same[1, 2] = same[2, 1] = 1.0  # two captions of one picture
    truth = same / same.sum(1, keepdim=True)
    expected = (
        torch.nn.functional.cross_entropy(logits, truth) + torch.nn.functional.cross_entropy(logits.T, truth)
    ) / 2
    expected.backward()
    value, slope = _cross_entropy(logits.detach().numpy(), truth.numpy())
    assert value == pytest.approx(expected.item())
    assert logits.grad is not None
    np.testing.assert_allclose(slope, logits.grad.numpy(), atol=1e-12)


def test_the_regression_finds_what_a_linear_map_can_and_ranks_by_its_products(
    folder: Path, drawn: PreparedDataset
) -> None:
    train = drawn.split("train")
    towers = encoder_of(pair(folder))
    halves = {"text": towers.parts()["text"]}
    captions = captions_of(train, True)
    features = FrozenFeatures(halves, towers.towers.tokenize, train, captions.texts, (24, 8))
    floor = FrozenFloor(features, captions, captions)
    found = floor(captions)
    chance = 1 / captions.split.num_images
    assert found["text_to_image/mrr"] > 10 * chance
    products = floor._images(captions) @ floor._weights @ features.texts(captions.texts).T  # [images, texts]
    own = products[captions.images, np.arange(len(captions.texts))]
    ranks = (products >= own).sum(0)  # ties count against it
    assert found["text_to_image/mrr"] == pytest.approx(float((1 / ranks).mean()), abs=0.02)


@pytest.mark.parametrize("which", ["vqa", "retrieval"])
def test_a_case_has_the_floor_where_a_half_is_pretrained(which: str, folder: Path, tmp_path: Path) -> None:
    pair(folder)
    place = str(Path(drawn_dataset.__file__))
    known = {
        "data": place,
        "data_folder": tmp_path,
        "image_size": 16,
        "validation_fraction": 0.25,
        "label_fraction": 1.0,
    }
    sizes = {"width": 16, "embedding_width": 16, "fusion_width": 16, "stem_width": 4, "vocabulary_size": 300}
    for towers, floors in (("small", {"ridge"}), (f"small+hf:{folder / 'bert'}", {"frozen_regression", "ridge"})):
        encoder_knobs = EncoderKnobs(towers=towers, freeze=() if towers == "small" else ("text",), **sizes)
        case: RetrievalCase | VqaCase
        if which == "vqa":
            case = VqaCase(vqa.Knobs(encoder=encoder_knobs, **known), Console(quiet=True))
        else:
            case = RetrievalCase(retrieval.Knobs(encoder=encoder_knobs, **known), Console(quiet=True))
        result = case.build(0).test()
        assert {name for name in result.floors if name not in ("chance", "language prior")} == floors
        if "frozen_regression" in floors and which == "vqa":
            assert result.floors["frozen_regression"]["vqa_accuracy"] > result.floors["language prior"]["vqa_accuracy"]
