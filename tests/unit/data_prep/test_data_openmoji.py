"""The OpenMoji adapter: bases, names and splits; the whole set as the package ships it, drawn once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.adapters import openmoji
from data_prep.prepare import prepare
from mt2st.data.splits import PreparedDataset, carve_validation, leaked_images
from mt2st.errors import Mt2stError
from tests.helpers.shared_folder import shared_folder

SQUARE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">'
    '<rect x="9" y="9" width="{}" height="30" fill="{}"/></svg>'
)


@pytest.mark.parametrize(
    ("stem", "base", "parts"),
    [
        ("1F469-1F3FD-200D-1F52C", "1F9D1-1F52C", ("tone:medium", "gender:woman")),
        ("1F9D1-200D-1F52C", "1F9D1-1F52C", ()),
        ("26F9-1F3FE-200D-2642-FE0F", "26F9", ("tone:medium-dark", "gender:man")),
        ("1F6B6-1F3FD-200D-2642-FE0F-200D-27A1-FE0F", "1F6B6", ("tone:medium", "gender:man", "direction:right")),
        ("1F936", "1F385", ("gender:woman",)),
        ("1F468-200D-1F469-200D-1F466", "1F46A", ("gender:man", "gender:woman")),
        ("1F469-200D-2764-FE0F-200D-1F468", "1F491", ("gender:woman", "gender:man")),
        ("1F46D-1F3FB", "1F46B", ("tone:light",)),
        ("1F3FB", "1F3FB", ()),
        ("27A1", "27A1", ()),
        ("2642", "2642", ()),
    ],
)
def test_variants_share_a_base(stem: str, base: str, parts: tuple[str, ...]) -> None:
    assert openmoji.analyse(stem) == (base, parts)


def folder_with(folder: Path, entries: dict[str, str]) -> Path:
    folder.mkdir()
    for stem, fill in entries.items():
        (folder / f"{stem}.svg").write_text(SQUARE.format(10 + len(fill), fill))
    return folder


def everything(folder: Path, **options: str) -> Iterator:
    for split in openmoji.CARD.splits:
        yield from openmoji.examples(split, source=folder, **options)


def test_equal_pictures_are_one_example_with_all_their_names(tmp_path: Path) -> None:
    entries = {
        "1F1F3-1F1F4": "red",
        "1F1F8-1F1EF": "red",
        "1F9D1-200D-1F33E": "green",
        "1F9D1-1F3FB-200D-1F33E": "green",
        "E2CC": "blue",
    }
    folder = folder_with(tmp_path / "svg", entries)
    found = {example.image_id: example.captions for example in everything(folder)}
    assert found["1F1F3-1F1F4"][:2] == ("flag of Norway", "flag of Svalbard & Jan Mayen")
    assert found["1F9D1-200D-1F33E"] == ("farmer",), "the name with a skin tone is dropped: the picture shows none"
    assert openmoji.left_out(source=folder) == {"pictograms": 5, "without_name": 1, "same_picture_as_another": 2}


def test_other_languages_follow_the_english_names(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "svg", {"1F436": "brown", "1F1E8-1F1F3": "red"})
    dog, china = sorted(everything(folder, languages="en,de,zh"), key=lambda example: example.image_id, reverse=True)
    assert dog.captions == ("dog face", "dog", "hundegesicht", "狗脸")
    assert china.captions[0] == "flag of China"
    assert china.captions[-1].endswith("旗")
    assert len(next(iter(everything(folder, languages="all"))).captions) >= 13
    with pytest.raises(Mt2stError, match="unknown language of dataset 'openmoji' 'dee'"):
        list(everything(folder, languages="en,dee"))


def test_a_group_is_called_by_its_smallest_base() -> None:
    pairs = [("d", "c"), ("a", "a"), ("c", "b"), ("f", "e")]
    assert openmoji._groups(pairs) == {"a": "a", "b": "b", "c": "b", "d": "b", "e": "e", "f": "e"}
    assert openmoji._groups([]) == {}


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match=r"holds no \.svg file"):
        list(everything(folder_with(tmp_path / "empty", {})))


@pytest.mark.parametrize("image_size", [16, 96])
@pytest.mark.parametrize(
    "text",
    [
        '<svg xmlns="http://www.w3.org/2000/svg" width="-1" height="5"/>',
        f'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>{SQUARE.format(13, "red")}',
    ],
    ids=["invalid size", "external entity"],
)
def test_a_bad_picture_is_one_bad_image(tmp_path: Path, text: str, image_size: int) -> None:
    names = ("1F436", "1F431", "1F42D", "1F439", "1F430", "1F98A", "1F43B", "1F43C", "1F428", "1F42F")
    source = folder_with(tmp_path / "svg", {name: f"#0000{number}0" for number, name in enumerate(names)})
    (source / "1F436.svg").write_text(text)
    arguments: dict[str, Any] = {"source": source, "out": tmp_path / "out", "image_size": image_size, "workers": 0}
    arguments["splits"] = ["train"]
    with pytest.raises(Mt2stError, match=r"openmoji/train image '1F436' \(.*1F436\.svg\) is an SVG "):
        prepare("openmoji", **arguments)
    counts = PreparedDataset.open(prepare("openmoji", on_error="skip", **arguments)).manifest["counts"]["train"]
    assert counts["skipped_images"] == 1
    assert counts["images"] > 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return PreparedDataset.open(prepare("openmoji", out=shared_folder(tmp_path_factory), image_size=32, workers=0))


def test_the_whole_set_is_accounted_for(whole: PreparedDataset) -> None:
    out = whole.manifest["left_out"]
    images = sum(whole.split(name).num_images for name in whole.splits)
    assert out["pictograms"] == 4495
    assert images + out["without_name"] + out["same_picture_as_another"] == 4495
    assert 500 <= out["without_name"] <= 560
    assert "CC BY-SA 4.0" in whole.card.notes


def test_no_base_and_no_picture_is_on_both_sides(whole: PreparedDataset) -> None:
    train, test, compositional = (whole.split(name) for name in ("train", "test", "test_compositional"))
    assert test.num_images > 500
    assert not set(train.extra_values("group")) & set(test.extra_values("group"))
    for evaluation in (test, compositional):
        assert leaked_images(train, evaluation) == []
    train_rows, validation_rows = carve_validation(train, 0.1, seed=0)
    one, other = train.subset(train_rows), train.subset(validation_rows)
    assert not set(one.extra_values("group")) & set(other.extra_values("group"))
    assert leaked_images(one, other) == []


def test_held_out_combinations_are_new_and_their_parts_are_not(whole: PreparedDataset) -> None:
    train, held_out = whole.split("train"), whole.split("test_compositional")
    assert held_out.num_images > 150
    kept = train.subset(carve_validation(train, 0.2, seed=1)[0])
    seen_parts, seen_combinations = set(), set()
    for stem, group in zip(kept.image_ids(), kept.extra_values("group"), strict=True):
        parts = (group, *openmoji.analyse(stem)[1])
        seen_parts.update(parts)
        seen_combinations.add((openmoji.analyse(stem)[0], parts))
    for stem, group in zip(held_out.image_ids(), held_out.extra_values("group"), strict=True):
        parts = (group, *openmoji.analyse(stem)[1])
        assert seen_parts.issuperset(parts), stem
        assert (openmoji.analyse(stem)[0], parts) not in seen_combinations, stem
