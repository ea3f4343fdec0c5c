"""`mt2st.data.splits` on small sets made here, prepared by `data_prep.prepare`."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.prepare import prepare
from mt2st.data.card import Answer, DatasetCard, Example
from mt2st.data.splits import (
    PreparedDataset,
    PreparedSplit,
    carve_validation,
    leaked_images,
    shared_units,
    without_leaked,
)
from mt2st.errors import Mt2stError
from mt2st.files import write_sealed_json


@dataclass(frozen=True)
class Toy:
    """An adapter made of lists: split → examples."""

    data: dict[str, list[Example]]
    CARD: DatasetCard = field(init=False)

    def __post_init__(self) -> None:
        card = DatasetCard("toy", "Toy", "vqa", "made here", "1", "CC0-1.0", dict.fromkeys(self.data), "vqa_accuracy")
        object.__setattr__(self, "CARD", card)

    def examples(self, split: str) -> Iterator[Example]:
        return iter(self.data[split])


def picture(colour: int, side: int = 8) -> Image.Image:
    return Image.fromarray(np.full((side, side, 3), colour, dtype=np.uint8))


def question(image: int, number: int, **more: object) -> Example:
    return Example(
        image=picture(image),
        image_id=f"im{image}",
        question=f"what is in {image}, number {number}?",
        question_id=f"{image}-{number}",
        answers=(Answer("yes", "a1"), Answer("no", "a2")),
        choices=("yes", "no"),
        question_type="yes/no",
        **more,  # type: ignore[arg-type]
    )


Maker = Callable[..., PreparedDataset]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    def made(data: dict[str, list[Example]], **options: object) -> PreparedDataset:
        return PreparedDataset.open(prepare(Toy(data), out=tmp_path, image_size=8, workers=0, **options), verify="full")  # type: ignore[arg-type]

    return made


def interleaved() -> list[Example]:
    """Questions on images 0, 1, 2 in the order 0 1 2 0 1 2; captions with the first of each.

    Label and extra on image 1.
    """
    first = [
        question(0, 0, captions=("c0", "c0 again")),
        question(1, 0, captions=("c1",), label="one", extra={"group": "g", "n": 1}),
        question(2, 0),
    ]
    return [*first, question(0, 1), question(1, 1, extra={"n": 2}), question(2, 1)]


def test_everything_an_example_says_comes_back(make: Maker) -> None:
    split = make({"train": interleaved()}).split("train")
    assert (split.num_images, split.num_captions, split.num_questions, split.image_size) == (3, 3, 6, 8)
    assert split.image_ids() == ["im0", "im1", "im2"]
    assert split.image_ids([2, 0]) == ["im2", "im0"]
    np.testing.assert_array_equal(
        split.pixels(np.array([2, 0, 2])), np.stack([np.full((8, 8, 3), v, np.uint8) for v in (2, 0, 2)])
    )
    assert split.caption_texts() == ["c0", "c0 again", "c1"]
    assert split.caption_images().tolist() == [0, 0, 1]
    assert split.caption_ranks().tolist() == [0, 1, 0]
    assert split.question_texts()[3] == "what is in 0, number 1?"
    assert split.question_images().tolist() == [0, 1, 2, 0, 1, 2]
    assert split.question_ids() == ["0-0", "1-0", "2-0", "0-1", "1-1", "2-1"]
    assert split.question_types() == ["yes/no"] * 6
    assert split.answers(4) == (Answer("yes", "a1"), Answer("no", "a2"))
    assert split.answer_texts() == [("yes", "no")] * 6
    assert split.choices(0) == ("yes", "no")
    assert split.labels() == [None, "one", None]
    assert split.extra(1) == {"group": "g", "n": 1}
    assert split.question_extra(4) == {"n": 2}
    assert split.extra_values("group") == [None, "g", None]
    assert split.has_pixels().all()


def test_subset_keeps_the_texts_of_its_images(make: Maker) -> None:
    split = make({"train": interleaved()}).split("train").subset(np.array([2, 0]))
    assert split.image_ids() == ["im2", "im0"]
    assert split.question_ids() == ["0-0", "2-0", "0-1", "2-1"]
    assert split.question_images().tolist() == [1, 0, 1, 0]
    assert split.caption_images().tolist() == [1, 1]
    inner = split.subset(np.array([1]))
    assert inner.image_ids() == ["im0"]
    assert inner.caption_texts() == ["c0", "c0 again"]
    assert inner.answers(1) == (Answer("yes", "a1"), Answer("no", "a2"))
    empty = split.subset(np.array([], dtype=np.int64))
    assert (empty.num_images, empty.num_captions, empty.num_questions) == (0, 0, 0)
    assert empty.caption_texts() == []
    assert empty.pixels([]).shape == (0, 8, 8, 3)


@pytest.mark.parametrize("rows", [[3], [-1], [0, 0], [True, False, True], [[0]], [0.5]])
def test_rows_that_are_none_are_refused(make: Maker, rows: list[object]) -> None:
    split = make({"train": interleaved()}).split("train")
    with pytest.raises(Mt2stError, match="row"):
        split.subset(np.array(rows))


def test_a_later_split_has_rows_of_its_own(make: Maker) -> None:
    data = make({"train": interleaved(), "test": [question(7, 0, captions=("seven",)), question(1, 0)]})
    test = data.split("test")
    assert test.image_ids() == ["im7", "im1"]
    assert test.question_images().tolist() == [0, 1]
    assert test.caption_images().tolist() == [0]
    assert test.pixels([1])[0, 0, 0, 0] == 1
    with pytest.raises(Mt2stError, match="did you mean 'test'"):
        data.split("tset")


def test_text_only_items_have_rows_and_no_pixels(make: Maker) -> None:
    texts = [Example(captions=(text,), label=text[0]) for text in ("alpha", "beta", "alpha")]
    split = make({"train": [*texts, question(3, 0)]}).split("train")
    assert split.num_images == 4
    assert split.labels() == ["a", "b", "a", None]
    assert split.caption_texts() == ["alpha", "beta", "alpha"]
    assert split.has_pixels().tolist() == [False, False, False, True]
    hashes = split.image_hashes()
    assert hashes[0] == hashes[2] != hashes[1]
    assert split.pixels([3])[0, 0, 0, 0] == 3
    with pytest.raises(Mt2stError, match="item 'item-1' is text-only"):
        split.pixels([3, 1])


def test_encoded_store_reads_the_same_pixels_and_hashes(make: Maker) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (13, 9, 3), dtype=np.uint8)) for _ in range(3)]
    examples = [Example(image=image, image_id=str(n), captions=(f"c{n}",)) for n, image in enumerate(noise)]
    one, other = make({"train": examples}), make({"train": examples}, store="encoded")
    assert (one.manifest["store"], other.manifest["store"]) == ("pixels", "encoded")
    assert one.content_hash == other.content_hash
    rows = np.array([2, 0, 1])
    np.testing.assert_array_equal(one.split("train").pixels(rows), other.split("train").pixels(rows))


def test_carving_keeps_equal_images_and_groups_together(make: Maker) -> None:
    copies = [Example(image=picture(n % 20), image_id=f"{n}", captions=("c",)) for n in range(60)]
    grouped = [
        Example(image=picture(100 + n), image_id=f"g{n}", captions=("c",), extra={"group": f"{n // 4}"})
        for n in range(40)
    ]
    split = make({"train": [*copies, *grouped]}).split("train")
    train, validation = carve_validation(split, 0.2, seed=3)
    assert sorted([*train, *validation]) == list(range(100))
    assert 20 <= len(validation) < 24
    assert leaked_images(split.subset(train), split.subset(validation)) == []
    groups = np.array([group or "" for group in split.extra_values("group")])
    assert not set(groups[train]) & set(groups[validation]) - {""}
    again = carve_validation(split, 0.2, seed=3)
    np.testing.assert_array_equal(again[1], validation)
    assert not np.array_equal(carve_validation(split, 0.2, seed=4)[1], validation)
    assert len(carve_validation(split, 0.0, seed=3)[1]) == 0


def test_a_chain_of_content_and_group_is_one_unit(make: Maker) -> None:
    # 0 = 1 by content, 1 ~ 2 by group, 2 = 3 by content: all four are one unit.
    chain = [(5, ""), (5, "g"), (6, "g"), (6, "")]
    examples = [
        Example(image=picture(v), image_id=f"{n}", captions=("c",), extra={"group": g})
        for n, (v, g) in enumerate(chain)
    ]
    split = make({"train": examples}).split("train")
    with pytest.raises(Mt2stError, match="leaves none"):
        carve_validation(split, 0.25, seed=0)


def units_one_by_one(*columns: list[object]) -> list[int]:
    """The slow, obvious twin: paint a row's unit over all rows that share a value, until nothing changes."""
    unit = list(range(len(columns[0])))
    changed = True
    while changed:
        changed = False
        for one, other in product(range(len(unit)), repeat=2):
            shared = any(column[one] and column[one] == column[other] for column in columns)
            if shared and unit[other] > unit[one]:
                unit[other], changed = unit[one], True
    return [sorted(set(unit)).index(number) for number in unit]


@given(st.lists(st.tuples(st.sampled_from([*"abcdefgh", ""]), st.sampled_from([None, "x", "y", 1, 2])), min_size=1))
def test_units_are_numbered_as_a_slow_twin_numbers_them(rows: list[tuple[object, object]]) -> None:
    content, group = ([row[column] for row in rows] for column in (0, 1))
    units = shared_units(content, group)
    assert units.dtype == np.int64
    assert units.tolist() == units_one_by_one(content, group)


def test_leaked_images_are_named_and_can_be_dropped(make: Maker) -> None:
    data = make(
        {
            "train": [question(n, 0) for n in (1, 2, 3)],
            "test": [Example(image=picture(v), image_id=f"t{v}", captions=("c",)) for v in (9, 2)],
        }
    )
    train, test = data.split("train"), data.split("test")
    assert leaked_images(train, test) == ["t2"]
    kept = without_leaked(train, test)
    assert kept.image_ids() == ["im1", "im3"]
    assert leaked_images(kept, test) == []


def test_labelled_fractions_are_nested_and_exact(make: Maker) -> None:
    split = make({"train": [question(n, 0) for n in range(50)]}).split("train")
    sets = [set(split.labelled_fraction(f, seed=1).tolist()) for f in (0.0, 0.001, 0.1, 0.5, 1.0)]
    assert [len(rows) for rows in sets] == [0, 1, 5, 25, 50]
    assert all(small <= large for small, large in pairwise(sets))
    assert sets[2] != set(split.labelled_fraction(0.1, seed=2).tolist())
    with pytest.raises(Mt2stError, match=r"fraction = 1\.1"):
        split.labelled_fraction(1.1, seed=1)


def test_stratified_fractions_hold_every_class(make: Maker) -> None:
    labels = ["common"] * 40 + ["rare"] * 10 + ["single"]
    examples = [
        Example(image=picture(n), image_id=f"{n}", captions=("c",), label=label) for n, label in enumerate(labels)
    ]
    split = make({"train": examples}).split("train")
    for fraction, counts in (
        (0.01, (1, 1, 1)),
        (0.1, (4, 1, 1)),
        (0.5, (20, 5, 1)),
        (1.0, (40, 10, 1)),
        (0.0, (0, 0, 0)),
    ):
        chosen = [split.labels()[row] for row in split.labelled_fraction(fraction, seed=3, stratified=True)]
        assert tuple(chosen.count(name) for name in ("common", "rare", "single")) == counts
    small, large = (set(split.labelled_fraction(f, seed=3, stratified=True).tolist()) for f in (0.1, 0.5))
    assert small <= large


def test_splits_travel_to_workers_by_reopening(make: Maker) -> None:
    split = make({"train": interleaved()}).split("train").subset(np.array([1, 2]))
    content = pickle.dumps(split)
    assert len(content) < 2000  # a path and rows, no pixels
    back: PreparedSplit = pickle.loads(content)  # noqa: S301
    assert back.image_ids() == ["im1", "im2"]
    np.testing.assert_array_equal(back.pixels([0]), split.pixels([0]))


def test_a_memory_mapped_pixel_is_not_writable_and_a_batch_is_the_callers_own(make: Maker) -> None:
    data = make({"train": interleaved()})
    batch = data.split("train").pixels([0])
    batch[:] = 77
    assert data.split("train").pixels([0]).max() == 0
    with pytest.raises(ValueError, match="read-only"):
        data.store[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        data.split("train").question_images()[0] = 5


@pytest.mark.parametrize("name", ["images.bin", "images.arrow", "captions.arrow", "questions.arrow", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "short", "flipped"])
def test_damage_is_found_and_named(make: Maker, name: str, damage: str) -> None:
    path = make({"train": interleaved()}).folder / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(content[:-2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(Mt2stError, match=f"{name}.*prepare") as caught:
        PreparedDataset.open(path.parent, verify="full")
    assert "\n" not in str(caught.value)


def test_foreign_folders_and_versions_are_refused(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="is not a folder of prepared data"):
        PreparedDataset.open(tmp_path / "nowhere")
    (tmp_path / "foreign").mkdir()
    with pytest.raises(Mt2stError, match=r"manifest.json is missing"):
        PreparedDataset.open(tmp_path / "foreign")
    (tmp_path / "foreign" / "manifest.json").write_text(json.dumps({"hello": 1}))
    with pytest.raises(Mt2stError, match="not ours"):
        PreparedDataset.open(tmp_path / "foreign")
    write_sealed_json(tmp_path / "foreign" / "manifest.json", {"format_version": 1, "status": "finished"})
    with pytest.raises(Mt2stError, match=r"format_version 1, this program reads 2"):
        PreparedDataset.open(tmp_path / "foreign")
    write_sealed_json(tmp_path / "foreign" / "manifest.json", {"format_version": 2, "status": "finished"})
    with pytest.raises(Mt2stError, match="is no manifest of prepared data: image_size = 'None'"):
        PreparedDataset.open(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        (
            "splits",
            {"train": {"images": [0, 99], "captions": [0, 0], "questions": [0, 0]}},
            "split 'train' ends at row 99",
        ),
        (
            "splits",
            {"train": {"images": [2, 1], "captions": [0, 0], "questions": [0, 0]}},
            r"splits\['train'\].images = '\[2, 1\]'",
        ),
        ("split_order", ["test"], "split_order"),
        ("store", "cloud", "store = 'cloud' is not one of pixels, encoded"),
        ("image_size", 3, "whole number of 3×3 images"),
        ("files", {"../../x": {"bytes": 1, "sha256": ""}}, "files = "),
        ("card", "pets", "is not a dataset card"),
    ],
)
def test_a_manifest_that_lies_under_a_whole_seal_is_refused(
    make: Maker, field: str, value: object, complaint: str
) -> None:
    folder = make({"train": interleaved()}).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sha256")
    write_sealed_json(folder / "manifest.json", manifest | {field: value})
    with pytest.raises(Mt2stError, match=complaint) as caught:
        PreparedDataset.open(folder).split("train").caption_texts()
    assert "\n" not in str(caught.value)
