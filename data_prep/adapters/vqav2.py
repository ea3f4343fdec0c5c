"""VQA v2: open-ended questions on COCO images, ten answers each, in complementary pairs.

Reads the published files, unchanged:
    v2_OpenEndedQuestions_mscoco_train2014_questions.json    v2_mscoco_train2014_annotations.json
    v2_mscoco_train2014_complementary_pairs.json             train2014/COCO_train2014_000000000009.jpg
and the same for val2014, test2015 and test-dev2015 (questions and test2015/ images only).
The questions of a complementary pair carry `extra["pair"]`, the smaller question id of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data_prep.adapters._published import find_file, vqa_examples
from data_prep.readers.json_stream import iterate_records
from mt2st.data.card import DatasetCard, Example
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="vqav2",
    title="VQA v2.0",
    task="vqa",
    source="visualqa.org/download.html",
    revision="v2.0 (2017-04-26)",
    licence="CC-BY-4.0 (annotations); images: Flickr terms, by COCO",
    splits={"train": 443757, "val": 214354, "test": 447793, "test-dev": 107394},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Goyal et al., Making the V in VQA Matter, CVPR 2017",
    requires="folder with the v2_*.json files and train2014/, val2014/, test2015/",
    notes="Counts as published; the layout is tested on a miniature made by us, the full set was not at hand. "
    "Test answers are not public.",
)

_FOLDERS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test2015"}
_FILES = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The questions of `split` in file order; test splits have no answers."""
    name, folder = _FILES[split], _FOLDERS[split]
    questions = find_file(
        source, f"v2_OpenEndedQuestions_mscoco_{name}_questions.json", f"v2_OpenEnded_mscoco_{name}_questions.json"
    )
    labelled = split in ("train", "val")
    annotations = find_file(source, f"v2_mscoco_{name}_annotations.json") if labelled else None
    images = find_file(source, folder, f"images/{folder}")
    pairs = _pairs(source / f"v2_mscoco_{name}_complementary_pairs.json")
    for example in vqa_examples(questions, annotations, images, f"COCO_{folder}_"):
        pair = pairs.get(int(example.question_id))
        yield example if pair is None else replace(example, extra={**example.extra, "pair": str(pair)})


def _pairs(path: Path) -> dict[int, int]:
    """Question id → smaller id of its pair; empty where the file is not there."""
    if not path.exists():
        return {}
    found: dict[int, int] = {}
    for number, pair in iterate_records(path):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, int) for one in pair):
            raise Mt2stError(f"{path}, record {number}: {str(pair)[:60]!r} is not a pair of question ids")
        found[pair[0]] = found[pair[1]] = min(pair)
    return found
