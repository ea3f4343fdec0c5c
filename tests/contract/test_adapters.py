"""Every adapter: miniature in the published layout → prepare → check → one training step → evaluation.

New ones are covered at once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.call import call_examples
from data_prep.check import check
from data_prep.find import find_adapter
from data_prep.prepare import prepare
from mt2st.data.card import Adapter, DatasetCard
from mt2st.data.splits import PreparedDataset, PreparedSplit
from mt2st.data.streams import CaptionStream, QuestionStream
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.errors import Mt2stError
from mt2st.metrics import vqa_accuracy
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.predict import embed_split, predict_answers
from mt2st.schedules import Constant
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer
from tests.helpers.published_layouts import LAYOUTS
from tests.helpers.tiny import objective, tiny_encoder

ADAPTERS = Path(__file__).resolve().parents[2] / "data_prep" / "adapters"
STEMS = sorted(path.stem for path in ADAPTERS.glob("*.py") if not path.stem.startswith("_"))


def laid_out(name: str, folder: Path) -> tuple[Adapter, Path | None, dict[str, str]]:
    """The adapter, its source folder (None: it brings its data), and the options for so small a set."""
    adapter = find_adapter(name.partition("/")[0])
    write = LAYOUTS[name]
    if write is None:
        return adapter, None, {}
    return adapter, folder, write(folder)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedDataset]:
    """Each miniature, prepared at 16 pixels when it is first asked for."""

    class Lazy(dict[str, PreparedDataset]):
        def __missing__(self, name: str) -> PreparedDataset:
            folder = tmp_path_factory.mktemp(name.replace("/", "-"))
            adapter, source, options = laid_out(name, folder / "source")
            found = prepare(adapter, source=source, options=options, out=folder / "out", image_size=16, workers=0)
            self[name] = PreparedDataset.open(found, verify="full")
            return self[name]

    return Lazy()


def test_every_adapter_has_a_miniature() -> None:
    assert {name.partition("/")[0] for name in LAYOUTS} == set(STEMS), (
        "add the new adapter's layout to tests/published_layouts.py"
    )


@pytest.mark.parametrize("stem", STEMS)
def test_cards_are_complete(stem: str) -> None:
    adapter = find_adapter(stem)
    card = adapter.CARD
    assert isinstance(adapter, Adapter)
    assert card.name == stem, "the name finds the file"
    assert card.requires or stem == "digits"
    assert card.source
    if "full set was not at hand" not in card.notes:
        assert "Checked here against the full set" in card.notes or stem == "word_similarity", (
            "say what was and was not checked"
        )
    assert DatasetCard(**{**vars(card)}) == card


@pytest.mark.parametrize("name", LAYOUTS)
def test_prepared_data_hold_every_split(name: str, prepared: dict[str, PreparedDataset], tmp_path: Path) -> None:
    data = prepared[name]
    adapter, source, options = laid_out(name, tmp_path)
    assert data.splits == tuple(data.card.splits) == tuple(adapter.CARD.splits)
    for split_name in data.splits:
        split = data.split(split_name)
        assert split.num_images >= 4
        assert len(set(split.image_ids())) == split.num_images
        if data.card.task == "vqa":
            assert split.num_questions >= 4
            labelled = [bool(answers) for answers in split.answer_texts()]
            assert all(labelled) or ("test" in split_name and not any(labelled))
        if split.has_pixels().any():
            assert split.pixels(np.flatnonzero(split.has_pixels())[:2]).shape[1:] == (16, 16, 3)
        given = list(call_examples(adapter, split_name, source, dict(options), 16))
        assert split.caption_texts() == [caption for example in given for caption in example.captions]
        assert split.question_texts() == [example.question for example in given if example.question is not None]
        assert split.labels() == list(
            {example.image_id or str(n): example.label for n, example in enumerate(given)}.values()
        )


@pytest.mark.parametrize("name", LAYOUTS)
def test_check_finds_nothing_but_the_counts(name: str, tmp_path: Path) -> None:
    adapter, source, options = laid_out(name, tmp_path / "source")
    problems = [
        problem
        for problem in check(adapter, source=source, options=options).problems
        if "the card declares" not in problem
    ]
    assert problems == []


def train_and_evaluate_vqa(train: PreparedSplit, evaluation: PreparedSplit) -> float:
    encoder = tiny_encoder()
    vocabulary = AnswerVocabulary.build(train.answer_texts(), 100)
    answering = objective("vqa", encoder, answers=len(vocabulary))
    tokenize = encoder.towers.tokenize
    stream = QuestionStream(train, tokenize, vocabulary, images_per_batch=4)
    Trainer(encoder, MT2ST(Task(answering, Constant())), {"primary": stream}, TrainConfig(total_steps=1)).fit()
    found = predict_answers(encoder, answering, evaluation, tokenize(evaluation.question_texts()))
    answers = evaluation.answer_texts()
    return float(
        np.mean(
            [vqa_accuracy(vocabulary.answers[at], given) for at, given in zip(found.prediction, answers, strict=True)]
        )
    )


def train_and_embed(train: PreparedSplit, evaluation: PreparedSplit) -> tuple[np.ndarray, np.ndarray]:
    encoder = tiny_encoder()
    tokenize = encoder.towers.tokenize
    stream = CaptionStream(train, tokenize, images_per_batch=4)
    mixture = MT2ST(Task(ContrastiveObjective("softmax", name="contrastive"), Constant()))
    Trainer(encoder, mixture, {"primary": stream}, TrainConfig(total_steps=1)).fit()
    return embed_split(encoder, evaluation, tokenize(evaluation.caption_texts()))


@pytest.mark.parametrize(
    "name", [name for name in LAYOUTS if find_adapter(name.partition("/")[0]).CARD.task in ("vqa", "retrieval")]
)
def test_one_training_step_and_evaluation(name: str, prepared: dict[str, PreparedDataset]) -> None:
    data = prepared[name]
    # NoCaps has no training split of its own: here it trains on what it is evaluated on, which shows the plumbing
    # alone.
    train = data.split("train" if "train" in data.splits else data.splits[0])
    labelled = [data.split(split) for split in data.splits[1:] or data.splits]
    torch.manual_seed(0)
    if data.card.task == "vqa":
        evaluation = next(split for split in labelled if any(split.answer_texts()))
        assert 0.0 <= train_and_evaluate_vqa(train, evaluation) <= 1.0
    else:
        evaluation = next((split for split in labelled if split.num_captions), train)
        images, texts = train_and_embed(train, evaluation)
        assert images.shape[0] == evaluation.num_images
        assert texts.shape[0] == evaluation.num_captions
        assert np.isfinite(images).all()
        assert np.isfinite(texts).all()


@pytest.mark.parametrize("name", [name for name, write in LAYOUTS.items() if write is not None])
def test_a_source_folder_without_the_files_says_which(name: str, tmp_path: Path) -> None:
    adapter = find_adapter(name.partition("/")[0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(Mt2stError, match=r"holds no|is missing"):
        prepare(adapter, source=tmp_path / "empty", out=tmp_path / "out", image_size=8)


# -- what particular sets carry ----------------------------------------------------------------------------------------


def test_vqav2_keeps_annotators_types_and_pairs(prepared: dict[str, PreparedDataset]) -> None:
    train = prepared["vqav2"].split("train")
    assert [answer.annotator for answer in train.answers(0)] == [str(n) for n in range(1, 11)]
    assert train.question_types()[0] == "what is"
    assert train.question_extra(0) == {"answer_type": "other", "pair": "9000"}
    assert train.question_ids()[:3] == ["9000", "9001", "10000"]
    assert prepared["vqav2"].split("test-dev").answers(0) == ()


def test_aokvqa_has_choices_and_the_right_one(prepared: dict[str, PreparedDataset]) -> None:
    train = prepared["aokvqa"].split("train")
    assert train.choices(1) == ("yes", "no", "two", "red")
    assert train.question_extra(1)["correct_choice"] == "no"
    assert prepared["aokvqa"].split("test").choices(1) == train.choices(1)


def test_vizwiz_says_what_cannot_be_answered(prepared: dict[str, PreparedDataset]) -> None:
    val = prepared["vizwiz"].split("val")
    assert val.question_types()[3] == "unanswerable"
    assert [val.question_extra(row)["answerable"] for row in range(4)] == [True, True, True, False]


def test_gqa_has_types_and_scenes_and_reads_all_parts(prepared: dict[str, PreparedDataset], tmp_path: Path) -> None:
    train = prepared["gqa"].split("train")
    expected = {
        "detailed_type": "verifyAttr",
        "semantic_type": "attr",
        "structural_type": "verify",
        "location": "street",
        "weather": "sunny",
    }
    assert train.question_extra(0) == expected
    adapter, source, _ = laid_out("gqa", tmp_path)
    assert source
    parts = tmp_path / "train_all_questions"
    parts.mkdir()
    for number in (10, 2):
        text = (tmp_path / "train_balanced_questions.json").read_text().replace('"00', f'"part{number}-')
        (parts / f"train_all_questions_{number}.json").write_text(text)
    found = [example.question_id for example in adapter.examples("train", source=source, questions="all")]  # type: ignore[call-arg]
    assert found == [f"part{number}-{n}" for number in (2, 10) for n in range(4)]


def test_clevr_has_program_families(prepared: dict[str, PreparedDataset]) -> None:
    assert prepared["clevr"].split("val").question_types() == ["exist", "count", "query", "compare"]


def test_vqa_rad_can_drop_training_questions_linked_to_test(
    prepared: dict[str, PreparedDataset], tmp_path: Path
) -> None:
    train = prepared["vqa_rad"].split("train")
    assert train.num_questions == 4
    assert train.answer_texts()[2] == ("3",)
    assert set(train.question_types()) == {"OPEN", "CLOSED"}
    adapter, source, _ = laid_out("vqa_rad", tmp_path)
    clean = list(adapter.examples("train", source=source, clean_train="yes"))  # type: ignore[call-arg]
    assert [example.question_id for example in clean] == ["1", "2", "3"]


@pytest.mark.parametrize(("language", "questions"), [("en", 4), ("zh", 4), ("all", 8)])
def test_slake_by_language(language: str, questions: int, tmp_path: Path) -> None:
    adapter, source, _ = laid_out("slake", tmp_path)
    assert len(list(adapter.examples("train", source=source, language=language))) == questions  # type: ignore[call-arg]


def test_coco_joins_train_and_restval_and_pins_counts(prepared: dict[str, PreparedDataset], tmp_path: Path) -> None:
    assert prepared["coco_captions"].split("train").num_images == 8
    assert prepared["coco_captions"].split("test").num_captions == 20
    for name, expected in (
        ("coco_captions", r"8 images instead of the 113,287"),
        ("flickr30k", r"4 images instead of the 29,000"),
    ):
        adapter, source, _ = laid_out(name, tmp_path / name)
        with pytest.raises(Mt2stError, match=f"{expected}.*other_counts=yes"):
            prepare(adapter, source=source, out=tmp_path / "out", image_size=8)


def test_a_linked_image_folder_is_fine_and_a_name_that_leaves_is_not(tmp_path: Path) -> None:
    adapter, source, options = laid_out("coco_captions", tmp_path / "source")
    assert source
    (source / "train2014").rename(tmp_path / "elsewhere")
    (source / "train2014").symlink_to(tmp_path / "elsewhere")
    prepare(adapter, source=source, options=options, out=tmp_path / "out", image_size=8, workers=0)
    text = (source / "dataset_coco.json").read_text().replace('"filepath": "val2014"', '"filepath": "../elsewhere"')
    (source / "dataset_coco.json").write_text(text)
    with pytest.raises(Mt2stError, match="leaves the folder"):
        prepare(adapter, source=source, options=options, out=tmp_path / "out", image_size=8, workers=0)


def test_conceptual_captions_counts_dead_addresses(prepared: dict[str, PreparedDataset]) -> None:
    assert prepared["conceptual_captions"].manifest["left_out"] == {"train_dead_addresses": 2, "val_dead_addresses": 2}
    assert prepared["conceptual_captions/shards"].split("train").caption_texts() == [f"caption {n}" for n in range(4)]


def test_conceptual_captions_counts_the_prepared_splits_alone(tmp_path: Path) -> None:
    """A list without its images, as after downloading one split alone, is no obstacle to the other."""
    adapter, source, _ = laid_out("conceptual_captions", tmp_path / "source")
    assert source
    shutil.rmtree(source / "train")
    found = prepare(adapter, source=source, splits=["val"], out=tmp_path / "out", image_size=8, workers=0)
    assert PreparedDataset.open(found).manifest["left_out"] == {"val_dead_addresses": 2}
    with pytest.raises(Mt2stError, match="holds no train"):
        prepare(adapter, source=source, out=tmp_path / "out", image_size=8, workers=0)


def test_wordnet_has_supersenses_lemmas_and_hypernyms(prepared: dict[str, PreparedDataset]) -> None:
    data = prepared["wordnet"]
    splits = [data.split("train"), data.split("test")]
    assert sum(split.num_images for split in splits) == 48
    found = {
        identity: (label, text, split.extra(row))
        for split in splits
        for row, (identity, label, text) in enumerate(
            zip(split.image_ids(), split.labels(), split.caption_texts(), strict=True)
        )
    }
    extra = {"lemmas": "noun_word1 other1", "hypernyms": "n00000000", "pos": "n"}
    assert found["n00000001"] == ("noun.animal", "the meaning 1 of a noun", extra)
    assert found["a00000000"][2]["lemmas"] == "adj_word0 other0"
    assert found["v00000003"][0] == "verb.motion"


def test_word_similarity_reads_every_separator(prepared: dict[str, PreparedDataset]) -> None:
    split = prepared["word_similarity"].split("test")
    assert [split.extra(row)["set"] for row in range(split.num_images)] == [
        "blanks",
        "blanks",
        "commas",
        "tabs",
        "tabs",
    ]
    assert split.caption_texts()[:2] == ["sun", "sunlight"]
    assert split.extra(3)["score"] == 7.35


def test_classes_are_labels(prepared: dict[str, PreparedDataset]) -> None:
    assert prepared["fashion_mnist"].split("test").labels() == ["T-shirt/top", "Trouser", "Pullover", "Dress"]
    digits = prepared["digits"]
    assert (digits.split("train").num_images, digits.split("test").num_images) == (1437, 360)
    assert set(digits.split("test").labels()) == set("0123456789")
    assert digits.split("train").pixels([0]).max() > 200
