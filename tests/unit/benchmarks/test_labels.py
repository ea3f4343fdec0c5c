"""Class numbers, stratified fractions, probes and floors of the classification cases."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from sklearn.metrics import f1_score

from benchmarks.cases.image.case import ImageCase
from benchmarks.cases.image.knobs import Knobs
from benchmarks.cases.shared.labels import (
    check_taught,
    class_codes,
    class_names,
    linear_probe,
    macro_f1,
    majority,
    nearest_neighbours,
    stratified_rows,
)
from data_prep.prepare import prepare
from mt2st.errors import Mt2stError


def split(*labels: str | None) -> Any:
    return SimpleNamespace(
        name="train", labels=lambda: list(labels), image_ids=lambda rows: [f"item{row}" for row in rows]
    )


def test_names_are_sorted_and_numbered() -> None:
    part = split("b", "a", "b")
    names = class_names(part)
    assert names == ["a", "b"]
    assert class_codes(part, names).tolist() == [1, 0, 1]


def test_a_missing_label_and_a_single_class_are_named() -> None:
    with pytest.raises(Mt2stError, match="item 'item1' has no label"):
        class_names(split("a", None))
    with pytest.raises(Mt2stError, match="1 classes"):
        class_names(split("a", "a"))


def test_a_label_outside_the_declared_classes_is_named_with_its_item() -> None:
    with pytest.raises(Mt2stError, match=r"item 'item1' has label 'z', outside the 2 classes"):
        class_codes(split("a", "z"), ["a", "b"])


def test_stratified_fractions_keep_every_class_and_are_nested() -> None:
    codes = np.repeat([0, 1, 2], [100, 10, 3])
    names = ["a", "b", "c"]
    small, large = (stratified_rows(codes, fraction, 0, names) for fraction in (0.1, 0.5))
    assert np.bincount(codes[small]).tolist() == [10, 1, 1]
    assert np.bincount(codes[large]).tolist() == [50, 5, 2]
    assert set(small) <= set(large)
    assert stratified_rows(codes, 1.0, 0, names).tolist() == list(range(113))
    assert (
        small.tolist()
        == stratified_rows(codes, 0.1, 0, names).tolist()
        != stratified_rows(codes, 0.1, 1, names).tolist()
    )


def test_a_class_with_one_example_cannot_be_stratified() -> None:
    with pytest.raises(Mt2stError, match=r"class 'rare' has one training item.*label_fraction = 1"):
        stratified_rows(np.array([0, 0, 1]), 0.5, 0, ["often", "rare"])
    assert len(stratified_rows(np.array([0, 0, 1]), 1.0, 0, ["often", "rare"])) == 3


def test_a_class_asked_for_but_never_taught_is_named() -> None:
    with pytest.raises(Mt2stError, match="first: 'b'"):
        check_taught(np.array([0]), np.array([0, 1]), ["a", "b"], "test")


def test_macro_f1_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    truth, guess = random.integers(0, 7, 200), random.integers(2, 9, 200)
    assert macro_f1(guess, truth) == pytest.approx(f1_score(truth, guess, average="macro"))


def test_probes_separate_what_can_be_separated_and_majority_is_a_floor() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(60) % 3
    vectors = np.eye(3)[truth] * 5 + random.normal(size=(60, 3)) * 0.1
    for probe in (linear_probe, nearest_neighbours):
        assert (probe(vectors[:30], truth[:30], vectors[30:]) == truth[30:]).all()
    assert majority(np.array([1, 1, 0]), np.array([1, 0, 0, 0])) == {"accuracy": 0.25, "macro_f1": pytest.approx(0.2)}


def picture_folder(folder: Path, labels: str, sizes: tuple[int, ...] = (8, 12, 20)) -> Path:
    """An image folder of noise, split by split, one letter of `labels` a picture; sizes in turn."""
    random = np.random.default_rng(len(labels))
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        rows = []
        for at, label in enumerate(labels):
            side = sizes[at % len(sizes)]
            Image.fromarray(random.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)).save(
                folder / split / f"{at}.png"
            )
            rows.append(json.dumps({"file_name": f"{at}.png", "label": label}))
        (folder / split / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_pictures_of_mixed_sizes_are_brought_to_one(tmp_path: Path) -> None:
    folder = prepare(
        picture_folder(tmp_path / "mixed", "ab" * 12),
        out=tmp_path,
        image_size=8,
        mapping={"image": "file_name", "label": "label"},
    )
    case = ImageCase(Knobs(data=str(folder), label_fraction=0.5), Console(quiet=True))
    assert case.train.pixels(np.arange(3)).shape == (3, 8, 8, 3)
    assert set(case.question.floors) == {"majority class", "k-NN on pixels"}


def test_a_prepared_size_that_the_encoder_does_not_take_is_named_with_the_cure(tmp_path: Path) -> None:
    folder = prepare(
        picture_folder(tmp_path / "mixed", "ab" * 12),
        out=tmp_path,
        image_size=16,
        mapping={"image": "file_name", "label": "label"},
    )
    with pytest.raises(Mt2stError, match=r"holds images of 16 px, not 8; set --image-size 16"):
        ImageCase(Knobs(data=str(folder), label_fraction=0.5, image_size=8), Console(quiet=True))


def test_a_class_with_one_example_stops_the_case_before_training(tmp_path: Path) -> None:
    folder = prepare(
        picture_folder(tmp_path / "rare", "ab" * 12 + "z"),
        out=tmp_path,
        image_size=8,
        mapping={"image": "file_name", "label": "label"},
    )
    with pytest.raises(Mt2stError, match=r"class 'z'|first: 'z'"):
        ImageCase(Knobs(data=str(folder), label_fraction=0.5), Console(quiet=True))
