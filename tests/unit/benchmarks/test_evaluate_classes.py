"""Zero-shot classification and probes: CLIP_benchmark's numbers, slow twins, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchmarks.commands.evaluate import main as evaluate
from benchmarks.evaluate.classification import class_ranks, lines_of, mean_class_accuracy, named
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json
from tests.helpers.finished_models import labelled_photos, open_clip_checkpoint, photo_files

CLASSES, TRAIN, TEST = 7, 42, 40
TEMPLATES = ["a photo of a {}.", "the small {c} near a tree", "{}"]
NAMES = ["a red dog", "house", "c2", "an old boat", "c4", "two trees", "sky"]
NAMED = [f"c{number}={name}" for number, name in enumerate(NAMES) if name != f"c{number}"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    open_clip_checkpoint(folder / "model")
    labelled_photos(folder, TRAIN, TEST, CLASSES)
    return folder


def command(place: Path, results: Path, *more: str) -> list[str]:
    places = ["--data-folder", str(place / "data"), "--results", str(results), "--threads", "1"]
    return ["--model", f"open_clip:{place / 'model'}", "--data", str(place / "classes.py"), *places, *more]


def clip_benchmark_zero_shot(model_folder: Path, files: list[Path], labels: list[int]) -> dict[str, float]:
    """Logits by CLIP_benchmark's own code. Its `accuracy` asks NumPy for the number of an array, which NumPy refuses by
    now, so that the last two lines of it stand here.
    """
    import open_clip
    from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier
    from PIL import Image
    from sklearn.metrics import balanced_accuracy_score

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{model_folder}")
    model.eval()
    pictures = torch.stack([transform(Image.open(file)) for file in files])
    batches = [(pictures[at : at + 9], torch.tensor(labels[at : at + 9])) for at in range(0, len(files), 9)]
    templates = [template.replace("{}", "{c}") for template in TEMPLATES]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_folder}")
    weights = zero_shot_classifier(model, tokenizer, NAMES, templates, "cpu", amp=False)
    logits, target = run_classification(model, weights, batches, "cpu", amp=False)
    best = logits.topk(5, 1, True, True)[1].t()
    right = best.eq(target.view(1, -1).expand_as(best))
    return {
        "zero_shot/accuracy@1": float(right[:1].sum()) / len(target),
        "zero_shot/accuracy@5": float(right[:5].sum()) / len(target),
        "zero_shot/mean_class_accuracy": balanced_accuracy_score(target, logits.argmax(1)),
    }


def test_zero_shot_equals_clip_benchmark(place: Path, tmp_path: Path) -> None:
    more = ("--tasks", "zero-shot", "--templates", *TEMPLATES, "--class-names", *NAMED)
    assert evaluate(command(place, tmp_path, *more)) == 0
    record = read_sealed_json(next(tmp_path.glob("evaluate/classes/*/run.json")), "-")
    files = photo_files(tmp_path / "files", TRAIN + TEST)[TRAIN:]
    labels = [number % CLASSES for number in range(TRAIN, TRAIN + TEST)]
    theirs = clip_benchmark_zero_shot(place / "model", files, labels)
    assert record["metrics"] == pytest.approx(theirs, abs=1e-6)
    assert 0 < theirs["zero_shot/accuracy@1"] < theirs["zero_shot/accuracy@5"] < 1
    assert record["notes"]["zero-shot"]["class_names"] == NAMES
    assert record["floors"]["zero-shot"]["chance"]["zero_shot/accuracy@5"] == pytest.approx(5 / CLASSES)


def test_auto_measures_probes_too_and_encodes_each_picture_once(place: Path, tmp_path: Path) -> None:
    assert evaluate(command(place, tmp_path, "--neighbours", "1")) == 0
    folder = next(tmp_path.glob("evaluate/classes/*/run.json")).parent
    record = read_sealed_json(folder / "run.json", "-")
    assert record["costs"]["images"]["items"] == TRAIN + TEST
    items = load_file(folder / "items.safetensors")
    for name in ("linear_probe", "nearest_neighbours"):
        share = (items[f"probes/{name}"] == items["probes/label"]).mean()
        assert record["metrics"][f"{name}/accuracy"] == pytest.approx(share)
        assert 0 < share < 1
    assert record["notes"]["probes"]["training_images"] == TRAIN
    table = (tmp_path / "evaluate" / "TABLE.md").read_text()
    assert "| zero-shot top-1 % | top-5 % | mean per class % | linear probe % | k-NN % |" in table


def test_fewer_classes_than_five_have_no_top_5(place: Path, tmp_path: Path) -> None:
    few = labelled_photos(tmp_path, 8, 8, 3, "few")
    assert evaluate([*command(place, tmp_path, "--tasks", "zero-shot"), "--data", str(few)]) == 0
    metrics = read_sealed_json(next(tmp_path.glob("evaluate/few/*/run.json")), "-")["metrics"]
    assert set(metrics) == {"zero_shot/accuracy@1", "zero_shot/mean_class_accuracy"}


def test_a_picture_that_is_also_asked_teaches_no_probe(place: Path, tmp_path: Path) -> None:
    text = (place / "classes.py").read_text().replace(f"({TRAIN}, {TEST})", f"({TRAIN - 5}, {TEST})")
    (tmp_path / "leaky.py").write_text(text.replace('name="classes"', 'name="leaky"'))
    assert evaluate([*command(place, tmp_path, "--tasks", "probes"), "--data", str(tmp_path / "leaky.py")]) == 0
    notes = read_sealed_json(next(tmp_path.glob("evaluate/leaky/*/run.json")), "-")["notes"]["probes"]
    assert (notes["training_images"], notes["training_images_dropped_for_being_in_test"]) == (TRAIN - 5, 5)


def test_ranks_and_class_means_equal_slow_twins() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.1, 0.9, 0.5]], dtype=np.float32)
    truth = np.array([0, 1, 2, 2])
    twin = [1 + sum(row[other] >= row[own] for other in range(3) if other != own) for row, own in zip(scores, truth)]
    assert class_ranks(scores, truth).tolist() == twin == [1, 2, 3, 2]
    assert mean_class_accuracy(np.array([True, True, False, False]), np.array([0, 0, 0, 5])) == pytest.approx(1 / 3)


def test_lines_come_from_the_command_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "templates.txt").write_text("a {}\n\n  the {}\n")
    assert lines_of((str(tmp_path / "templates.txt"),)) == ["a {}", "the {}"]
    assert lines_of(("a {}",)) == ["a {}"]
    (tmp_path / "templates.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(Mt2stError, match="is not UTF-8 text"):
        lines_of((str(tmp_path / "templates.txt"),))
    assert named(["0", "1"], ["1 = one"]) == ["0", "one"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--templates", "a photo"), "template 'a photo' has no {} for the class name"),
        (("--class-names", "dog"), "'dog' is not LABEL=NAME"),
        (("--class-names", "c8=dog"), "unknown label in --class-names 'c8'; did you mean"),
        (("--tasks", "probes", "--train-split", "trian"), "name one with --train-split"),
        (("--data", "easy_vqa", "--limit", "4", "--tasks", "zero-shot"), "has no label; classification needs one each"),
    ],
)
def test_bad_input_is_one_line(place: Path, tmp_path: Path, more: tuple[str, ...], why: str) -> None:
    with pytest.raises(Mt2stError) as caught:
        evaluate(command(place, tmp_path, *more))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
