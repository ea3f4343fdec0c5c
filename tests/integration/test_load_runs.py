"""`mt2st.load` on runs that the suite has trained: the numbers of the suite's own test, from the folder alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import mt2st
from benchmarks.cli import main
from mt2st.__main__ import main as use
from mt2st.data.prepared import PreparedDataset
from tests.helpers import checkpoints

DRAWN = Path(__file__).parents[1] / "helpers" / "drawn_dataset.py"
SUITE = [
    *("--data", str(DRAWN), "--image-size", "16", "--steps", "12", "--seeds", "1", "--validations", "1"),
    *(
        "--views",
        "equal-steps",
        "--strategies",
        "MTL",
        "--validation-fraction",
        "0.3",
        "--jobs",
        "1",
        "--draw",
        "fixed",
    ),
    *("--images-per-batch", "4", "--caption-images-per-batch", "8", "--on-leak", "drop", "--label-fraction", "1"),
    *("--encoder.width", "16", "--encoder.embedding-width", "16", "--encoder.fusion-width", "16"),
    *("--encoder.stem-width", "4", "--encoder.vocabulary-size", "300"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def trained(case: str, data: Path, folder: Path, *options: str) -> Path:
    """A finished run, moved to where neither data nor suite are."""
    assert main([case, *SUITE, *options, "--data-folder", str(data), "--results", str(folder / "results")]) == 0
    run = next((folder / "results" / case / "default").glob("mtl-*"))
    return Path(shutil.move(run, folder / "elsewhere"))


def pictures(split: object) -> list[np.ndarray]:
    count = split.num_images  # type: ignore[attr-defined]
    return list(split.pixels(np.arange(count)))  # type: ignore[attr-defined]


def test_a_vqa_run_answers_as_in_its_own_test(data: Path, tmp_path: Path) -> None:
    run = trained("vqa", data, tmp_path)
    (prepared,) = data.glob("*/manifest.json")
    test = PreparedDataset.open(prepared.parent).split("test")
    model = mt2st.load(run, device="cpu")
    found = model.answer_all(pictures(test), test.question_texts(), question_image=test.question_images())
    labelled = [bool(given) for given in test.answer_texts()]
    items = load_file(run / "items.safetensors")
    best = [answers[0] for answers, kept in zip(found, labelled, strict=True) if kept]
    assert [model.answers.index(answer.text) for answer in best] == items["prediction"].tolist()
    assert [answer.probability for answer in best] == pytest.approx(items["confidence"], abs=1e-5)
    interval = model.about["intervals"]["vqa_accuracy"]
    assert interval["over"] == "clusters"  # pictures
    assert interval["low"] <= model.about["test"]["vqa_accuracy"] <= interval["high"]
    assert use(["export", str(run), "--format", "safetensors", "--out", str(tmp_path / "exported")]) == 0
    again = mt2st.load(tmp_path / "exported", device="cpu")
    assert again.answer_all(pictures(test), test.question_texts(), question_image=test.question_images()) == found
    # the same through the command line, from picture files
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(pictures(test)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    asked = [
        {"question_id": number, "image": f"{image}.png", "question": question}
        for number, (image, question) in enumerate(zip(test.question_images(), test.question_texts(), strict=True))
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(json.dumps(row) for row in asked))
    out = tmp_path / "answers.json"
    arguments = ["--images", str(folder), "--questions", str(tmp_path / "asked.jsonl"), "--format", "vqa"]
    assert use(["predict", str(run), *arguments, "--out", str(out)]) == 0
    assert [row["answer"] for row in json.loads(out.read_text())] == [answers[0].text for answers in found]


def test_a_retrieval_run_embeds_as_in_its_own_test(data: Path, tmp_path: Path) -> None:
    run = trained("retrieval", data, tmp_path)
    (prepared,) = data.glob("*/manifest.json")
    test = PreparedDataset.open(prepared.parent).split("test")
    model = mt2st.load(run, device="cpu")
    kept = load_file(run / "embeddings.safetensors")
    with_captions = np.unique(test.caption_images())
    images = [picture for number, picture in enumerate(pictures(test)) if number in with_captions]
    assert np.allclose(model.embed_images(images), kept["image_embeddings"], atol=1e-5)
    assert np.allclose(model.embed_texts(test.caption_texts()), kept["text_embeddings"], atol=1e-5)


def test_a_frozen_checkpoint_that_was_run_once_is_built_from_the_runs_folder(data: Path, tmp_path: Path) -> None:
    towers = f"small+hf:{checkpoints.bert(tmp_path / 'bert')}"
    run = trained("vqa", data, tmp_path, "--encoder.towers", towers, "--encoder.freeze", "text")
    shutil.rmtree(tmp_path / "bert")
    (prepared,) = data.glob("*/manifest.json")
    test = PreparedDataset.open(prepared.parent).split("test")
    model = mt2st.load(run, device="cpu")
    found = model.answer_all(pictures(test), test.question_texts(), question_image=test.question_images())
    labelled = [bool(given) for given in test.answer_texts()]
    best = [answers[0] for answers, kept in zip(found, labelled, strict=True) if kept]
    assert [answer.probability for answer in best] == pytest.approx(
        load_file(run / "items.safetensors")["confidence"], abs=1e-5
    )


@pytest.mark.parametrize(
    ("keep", "reason"),
    [("nothing", "the run kept no weights"), ("checkpoints", "kept its checkpoints .*with --keep weights")],
)
def test_a_run_without_weights_says_so(keep: str, reason: str, data: Path, tmp_path: Path) -> None:
    arguments = ["--keep", keep, "--data-folder", str(data), "--results", str(tmp_path)]
    assert main(["vqa", *SUITE, *arguments]) == 0
    run = next((tmp_path / "vqa" / "default").glob("mtl-*"))
    with pytest.raises(mt2st.Mt2stError, match=reason):
        mt2st.load(run)
