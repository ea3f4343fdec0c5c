"""The easy-VQA adapter: derived captions, and the whole set as the package ships it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.adapters import easy_vqa
from data_prep.prepare import prepare
from mt2st.data.splits import PreparedDataset, leaked_images
from mt2st.errors import Mt2stError
from tests.helpers.shared_folder import shared_folder


@pytest.mark.parametrize(
    ("questions", "caption"),
    [
        ([("what color is the shape?", "blue"), ("what shape is in the image?", "circle")], "a blue circle"),
        ([("what color is the triangle?", "teal")], "a teal triangle"),
        ([("what is the red shape?", "rectangle")], "a red rectangle"),
        ([("is there a gray shape?", "yes")], "a gray shape"),
        ([("is there not a circle?", "no")], "a circle"),
        ([("is no circle present?", "no")], "a circle"),
        ([("is there not a circle?", "yes"), ("does the image contain a triangle?", "no")], "a rectangle"),
        ([("is there not a circle?", "yes")], None),
        ([("is there a red shape?", "no")], None),
        ([], None),
    ],
)
def test_captions_say_what_the_answers_determine(questions: list[tuple[str, str]], caption: str | None) -> None:
    assert easy_vqa.derive_caption(questions) == caption


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return PreparedDataset.open(prepare("easy_vqa", out=shared_folder(tmp_path_factory), image_size=64, workers=0))


def test_the_whole_set_has_the_published_counts(whole: PreparedDataset) -> None:
    train, test = whole.split("train"), whole.split("test")
    assert (train.num_images, train.num_questions, test.num_images, test.num_questions) == (4000, 38575, 1000, 9673)
    answers = [answers[0] for answers in train.answer_texts()]
    assert answers.count("yes") + answers.count("no") == 28407
    assert train.question_types().count("yes/no") == 28407
    assert len(set(answers)) == 13


def test_no_image_is_on_both_sides_at_original_size(whole: PreparedDataset) -> None:
    assert leaked_images(whole.split("train"), whole.split("test")) == []
    assert len(set(whole.split("train").image_hashes())) == 4000


def test_derived_captions_agree_with_the_pixels(whole: PreparedDataset) -> None:
    """The caption's colour is the mean colour of what is not background, for every image."""
    train = whole.split("train")
    rgb = {
        "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "teal": (0, 1, 1),
    }  # fmt: skip
    texts, rows = train.caption_texts(), train.caption_images()
    checked = 0
    for text, pixels in zip(texts, train.pixels(rows), strict=True):
        colour = text.split()[1]
        if colour in rgb:
            flat = pixels.reshape(-1, 3).astype(int)
            vivid = flat[(flat.max(1) - flat.min(1)) > 60].mean(0)
            present = np.array(rgb[colour], dtype=bool)
            assert vivid[present].min() > vivid[~present].max(), text
            checked += 1
    assert checked > 2000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "questions.json is missing"),
        ("[[1, 2", "is not valid JSON"),
        ('{"a": 1}', "holds a dict"),
        ('[["q", "a", 0], ["q", "a"]]', "record 1"),
        ('[["q", "a", "0"]]', "record 0"),
    ],
)
def test_a_bad_questions_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    (tmp_path / "train").mkdir()
    if content is not None:
        (tmp_path / "train" / "questions.json").write_text(content)
    with pytest.raises(Mt2stError, match=message):
        list(easy_vqa.examples("train", source=tmp_path))


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        rows = [["what color is the shape?", "blue", n] for n in range(7)]
        (tmp_path / split / "questions.json").write_text(json.dumps(rows))
    with pytest.raises(Mt2stError, match=r"7 images are missing from disk \(first: .*0\.png, .*4\.png\)"):
        prepare("easy_vqa", out=tmp_path / "out", source=tmp_path, image_size=8)
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == []
