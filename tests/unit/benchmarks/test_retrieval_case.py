"""The retrieval case: which captions ask, what the second test split is, and what chance gives."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.cases.retrieval import knobs as retrieval
from benchmarks.cases.retrieval.case import RetrievalCase
from benchmarks.cases.retrieval.floors import first_rank_by_chance
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from mt2st.errors import Mt2stError

TINY = EncoderKnobs(width=16, embedding_width=16, fusion_width=16, stem_width=4, vocabulary_size=300)
ADAPTER = """
from mt2st.data.card import DatasetCard, Example
import io
from PIL import Image

CARD = DatasetCard(name="birds", title="Birds", task="retrieval", source="drawn", revision="1", licence="CC0-1.0",
                   splits={"train": None, "test": None}, main_metric="hit_rate@1", protocol="main-caption")


def examples(split):
    for number in range(12 if split == "train" else 4):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (20 * number, 90 if split == "train" else 180, 7)).save(stream, "PNG")
        names = (f"bird {number}", f"oiseau {number}", f"Vogel {number}")
        yield Example(image=stream.getvalue(), image_id=f"{split}{number}", captions=names)
"""


def knobs(folder: Path, data: str, **changes: object) -> retrieval.Knobs:
    values = {
        "data": data,
        "data_folder": folder / "data",
        "image_size": 8,
        "encoder": TINY,
        "validation_fraction": 0.3,
        "images_per_batch": 4,
    }
    return retrieval.Knobs(**{**values, **changes})  # type: ignore[arg-type]


def test_every_caption_asks_unless_the_card_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(ADAPTER)
    (tmp_path / "plain.py").write_text(
        ADAPTER.replace(', protocol="main-caption"', "").replace('"birds"', '"plain_birds"')
    )
    named, every = (
        RetrievalCase(knobs(tmp_path, str(tmp_path / name)), Console(quiet=True)) for name in ("named.py", "plain.py")
    )
    assert (len(named.tests[""].texts), len(every.tests[""].texts)) == (4, 12)
    assert named.tests[""].texts[:2] == ["bird 0", "bird 1"]
    assert every.tests[""].images.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    found = every.build(0).test()
    assert len(found.items["text_to_image_rank"]) == 12
    assert len(found.items["image_to_text_rank"]) == 4
    by_chance = found.floors["chance"]
    assert by_chance["text_to_image/hit_rate@1"] == pytest.approx(1 / 4)
    assert by_chance["image_to_text/hit_rate@1"] == pytest.approx(3 / 12)
    assert by_chance["image_to_text/mean_rank"] == pytest.approx(13 / 4)


def test_a_second_test_split_is_measured_where_there_is_one(tmp_path: Path) -> None:
    for split in ("train", "test", "test_compositional"):
        (tmp_path / "set" / split).mkdir(parents=True)
        rows = []
        for number in range(10):
            Image.new("RGB", (8, 8), (20 * number, 40 * len(split) % 256, 7)).save(
                tmp_path / "set" / split / f"{number}.png"
            )
            rows.append({"file_name": f"{number}.png", "captions": f"number {number}"})
        (tmp_path / "set" / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = str(tmp_path / "set")
    assert list(RetrievalCase(knobs(tmp_path, data), Console(quiet=True)).tests) == ["", "compositional/"]
    assert list(RetrievalCase(knobs(tmp_path, data, second_test_split=""), Console(quiet=True)).tests) == [""]
    with pytest.raises(Mt2stError, match="test_new"):
        RetrievalCase(knobs(tmp_path, data, second_test_split="test_new"), Console(file=io.StringIO()))


@pytest.mark.parametrize(("items", "relevant"), [(4, [1]), (7, [1]), (9, [2, 5, 2, 9]), (30, [5, 5, 4])])
def test_chance_is_what_random_orders_give(items: int, relevant: list[int]) -> None:
    share = first_rank_by_chance(items, np.array(relevant))
    assert share.sum() == pytest.approx(1.0)
    random = np.random.default_rng(0)
    draws = 20_000
    ranks = np.concatenate(
        [random.permuted(np.tile(np.arange(1, items + 1), (draws, 1)), axis=1)[:, :count].min(1) for count in relevant]
    )
    measured = np.bincount(ranks, minlength=items + 1)[1:] / len(ranks)
    assert np.abs(share - measured).max() < 0.012  # 4 standard errors of 20,000 draws at most


def test_withheld_queries_are_seen_by_nobody_and_the_other_captions_by_the_auxiliaries(tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(ADAPTER)
    case = RetrievalCase(knobs(tmp_path, str(tmp_path / "named.py"), label_fraction=0.4), Console(quiet=True))
    labelled = {text.split()[1] for text in case.names.texts}
    assert 0 < len(labelled) == case.data["labelled_images"] < case.train.num_images
    seen = case.train.caption_texts(case.further)
    assert {text.split()[1] for text in seen if text.startswith("bird")} == labelled
    assert sum(text.startswith("oiseau") for text in seen) == case.train.num_images
    streams = case.build(0).streams
    asked = {tuple(row) for index in range(5) for row in streams["primary"].batch(index)["caption_tokens"].tolist()}
    assert len(asked) == len(labelled)
    assert case.data["training_captions"] == len(seen) == 2 * case.train.num_images + len(labelled)


def test_where_every_caption_asks_every_image_is_labelled(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(ADAPTER.replace(', protocol="main-caption"', ""))
    printed = io.StringIO()
    data = str(tmp_path / "plain.py")
    case = RetrievalCase(knobs(tmp_path, data, label_fraction=0.2), Console(file=printed, width=200))
    assert case.data["labelled_images"] == case.train.num_images
    assert "every caption asks, so every training image is labelled" in printed.getvalue()


def test_the_ridge_floor_is_tuned_and_better_than_a_random_order(tmp_path: Path) -> None:
    """Pictures whose brightness their text tells: a ridge finds them."""
    text = (
        ADAPTER.replace("range(12 if", "range(60 if")
        .replace("else 4)", "else 20)")
        .replace("(20 * number, 90 if", "(60 * (number % 4), 90 if")
    )
    text = text.replace('(f"bird {number}",', "(f\"bird {'abcd'[number % 4]} {number}\",")
    (tmp_path / "bright.py").write_text(text.replace("7))", "number))"))
    case = RetrievalCase(knobs(tmp_path, str(tmp_path / "bright.py")), Console(quiet=True))
    found = case.build(0).test()
    assert found.floors["ridge"]["text_to_image/mrr"] > 1.5 * found.floors["chance"]["text_to_image/mrr"]
    assert found.floors["ridge"].keys() >= {"image_to_text/mrr", "text_to_image/hit_rate@10"}
    assert case.ridge is case.ridge, "found once"


def test_items_of_one_group_are_one_cluster(tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(ADAPTER)
    grouped = ADAPTER.replace("captions=names", "captions=names, extra={'group': str(number // 2)}")
    (tmp_path / "grouped.py").write_text(grouped.replace('"birds"', '"grouped_birds"'))
    for name, clusters in (("named.py", [0, 1, 2, 3]), ("grouped.py", [0, 0, 1, 1])):
        case = RetrievalCase(knobs(tmp_path, str(tmp_path / name)), Console(quiet=True))
        found = case.build(0).test().items
        assert found["cluster"].tolist() == clusters
        assert found["cluster"].dtype == np.int32


def test_a_query_of_unknown_words_alone_is_measured_too(tmp_path: Path) -> None:
    words = ADAPTER.replace('f"bird {number}"', "f\"{split} word\" if split == 'train' else 'nobody knows'")
    (tmp_path / "unknown.py").write_text(words.replace(', f"oiseau {number}", f"Vogel {number}"', ","))
    case = RetrievalCase(knobs(tmp_path, str(tmp_path / "unknown.py")), Console(quiet=True))
    assert 0 < case.ridge(case.tests[""])["text_to_image/mrr"] <= 1
