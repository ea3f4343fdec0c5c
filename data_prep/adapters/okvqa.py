"""OK-VQA: questions on COCO images that need outside knowledge, ten answers each.

Reads the published files, unchanged:
    OpenEnded_mscoco_train2014_questions.json
    mscoco_train2014_annotations.json
    train2014/COCO_train2014_000000051606.jpg
and the same for val2014, which serves as its test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._published import find_file, vqa_examples
from mt2st.data.card import DatasetCard, Example

CARD = DatasetCard(
    name="okvqa",
    title="OK-VQA",
    task="vqa",
    source="okvqa.allenai.org/download.html",
    revision="v1.1",
    licence="CC-BY-4.0 (annotations); images: Flickr terms, by COCO",
    splits={"train": 9009, "val": 5046},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Marino et al., OK-VQA, CVPR 2019",
    requires="folder with OpenEnded_mscoco_*_questions.json, mscoco_*_annotations.json, train2014/ and val2014/",
    notes="val is what papers report as test. "
    "Answers are the annotators' stemmed-to-agree `answer`, as the official evaluation uses them. "
    "Counts as published; the layout is tested on a miniature made by us, the full set was not at hand.",
)


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The questions of `split` in file order."""
    name = f"{split}2014"
    questions = find_file(source, f"OpenEnded_mscoco_{name}_questions.json")
    annotations = find_file(source, f"mscoco_{name}_annotations.json")
    return vqa_examples(questions, annotations, find_file(source, name, f"images/{name}"), f"COCO_{name}_")
