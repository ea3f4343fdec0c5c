"""Models from a run's folder: the same numbers, every form of picture, and folders that are not whole."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mt2st
from mt2st.errors import Mt2stError
from mt2st.files import content_hash
from mt2st.trained.vision_language import VisionLanguageModel
from tests.helpers.trained_folder import ANSWERS, QUESTIONS, pictures, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a small VQA model with random weights."""
    return write_run(tmp_path / "run")


def forms_of(picture: Image.Image, folder: Path) -> list[Any]:
    """One picture in every form that is taken."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    path = folder / "picture.png"
    path.write_bytes(stream.getvalue())
    return [path, str(path), stream.getvalue(), picture, np.asarray(picture)]


def test_every_form_of_a_picture_gives_one_embedding(run: Path, tmp_path: Path) -> None:
    model = mt2st.load(run, device="cpu")
    found = model.embed_images(forms_of(pictures(1)[0], tmp_path))
    assert found.shape == (5, 8)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert (found == found[0]).all()


def test_answers_are_those_of_the_model_itself(run: Path) -> None:
    model = mt2st.load(run, device="cpu")
    images = pictures(2)
    tokens = model.encoder.towers.tokenize(QUESTIONS)  # padded to the full length, unlike the model's own
    batch = {
        "pixels": model.pixels(images),
        "question_tokens": tokens,
        "question_image": torch.tensor([1, 0, 1]),
    }
    with torch.inference_mode():
        expected = model._head.logits(model.encoder.features(batch)).softmax(-1)
    found = model.answer_all(images, QUESTIONS, question_image=[1, 0, 1], top=9, batch_size=1)
    for row, answers in zip(expected, found, strict=True):
        assert [answer.text for answer in answers] == [ANSWERS[at] for at in row.argsort(descending=True)]
        assert [answer.probability for answer in answers] == pytest.approx(sorted(row.tolist(), reverse=True), abs=1e-6)
        assert sum(answer.probability for answer in answers) == pytest.approx(1, abs=1e-5)
    assert model.answer(images[1], QUESTIONS[0], top=1)[0].text == found[0][0].text


def test_batches_do_not_change_embeddings(run: Path) -> None:
    model = mt2st.load(run, device="cpu")
    images = pictures(5)
    assert np.allclose(model.embed_images(images, batch_size=2), model.embed_images(images), atol=1e-6)
    assert np.allclose(model.embed_texts(QUESTIONS, batch_size=1), model.embed_texts(QUESTIONS), atol=1e-6)
    assert model.embed_texts([]).shape == (0, 8)
    assert model.embed_images([]).shape == (0, 8)


def test_a_moved_folder_loads(run: Path, tmp_path: Path) -> None:
    expected = mt2st.load(run, device="cpu").embed_texts(QUESTIONS)
    moved = shutil.move(run, tmp_path / "elsewhere" / "of another name")
    assert (mt2st.load(moved, device="cpu").embed_texts(QUESTIONS) == expected).all()


def test_a_retrieval_model_answers_nothing(tmp_path: Path) -> None:
    model = mt2st.load(write_run(tmp_path / "run", answers=()), device="cpu")
    assert isinstance(model, VisionLanguageModel)
    with pytest.raises(Mt2stError, match=r"mtl-s0 does not answer questions: it was trained for retrieval; .*embed"):
        model.answer(pictures(1)[0], "what is it?")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3)), r"picture 1 is an array float64 \[4, 4, 3\]; give uint8 \[height, width, 3\]"),
        (np.zeros((4, 4, 4), np.uint8), r"picture 1 is an array uint8 \[4, 4, 4\]"),
        (b"no picture", r"picture 1 cannot be decoded|picture 1 .*no image"),
        ("missing.png", "missing.png does not exist"),
        (7, "picture 1 is of type int; give a path"),
    ],
)
def test_a_bad_picture_is_named(run: Path, picture: Any, message: str) -> None:
    model = mt2st.load(run, device="cpu")
    with pytest.raises(Mt2stError, match=message):
        model.embed_images([pictures(1)[0], picture])


def test_questions_and_pictures_that_do_not_fit(run: Path) -> None:
    model = mt2st.load(run, device="cpu")
    for images, about in ((2, None), (1, [0, 0, 1]), (1, [0, -1, 0])):
        with pytest.raises(Mt2stError, match=r"3 questions and [12] pictures do not fit together"):
            model.answer_all(pictures(images), QUESTIONS, question_image=about)


def altered(run: Path, **values: Any) -> None:
    """Change `model.json` and seal it anew."""
    path = run / "model.json"
    content = {**json.loads(path.read_text()), **values}
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": content_hash(content)}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "weights.safetensors").unlink(), "weights.safetensors is missing though model.json lists"),
        (lambda run: (run / "answers.txt").write_text("yes\n"), "answers.txt does not match its checksum"),
        (lambda run: (run / "model.json").write_text("{}"), "model.json carries no checksum"),
        (lambda run: (run / "model.json").unlink(), "has no model.json: it is no run's folder"),
        (lambda run: altered(run, format=9), "is of format 9, this version reads 1"),
        (lambda run: altered(run, kind="oracle"), "kind of model in .*'oracle'"),
        (lambda run: altered(run, kind=["vision-language"]), "kind of model"),
        (lambda run: altered(run, files={"../x": "0"}, weights="../x"), "'../x', which is outside the folder"),
        (lambda run: altered(run, weights="other"), "describes no model"),
        (lambda run: altered(run, build={"towers": "small"}), "describes no model that this version can build"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(run: Path, damage: Any, message: str) -> None:
    damage(run)
    with pytest.raises(Mt2stError, match=message) as caught:
        mt2st.load(run)
    assert "\n" not in str(caught.value)


def test_weights_of_another_size(run: Path) -> None:
    build = json.loads((run / "model.json").read_text())["build"]
    altered(run, build={**build, "small": {**build["small"], "embedding_width": 12}})
    with pytest.raises(Mt2stError, match=r"does not fit the model that .* describes"):
        mt2st.load(run)


@pytest.mark.parametrize(("name", "message"), [("cuda:99", "device"), ("meta", "holds no numbers"), ("x", "device")])
def test_a_device_that_is_not_there(run: Path, name: str, message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        mt2st.load(run, device=name)
