"""VizWiz-VQA: photos and questions by blind people, ten answers each, many of them "unanswerable".

Reads the published files, unchanged: Annotations/train.json (val, test) and train/VizWiz_train_00000000.jpg (val/,
test/). `extra["answerable"]` is the published label; the set gives annotators no ids, so their position is the id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._published import annotators, find_file, get_field, image_in
from data_prep.readers.json_stream import iterate_objects
from mt2st.data.card import DatasetCard, Example

CARD = DatasetCard(
    name="vizwiz",
    title="VizWiz-VQA",
    task="vqa",
    source="vizwiz.org/tasks-and-datasets/vqa/",
    revision="2023-01-01",
    licence="CC-BY-4.0",
    splits={"train": 20523, "val": 4319, "test": 8000},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Gurari et al., VizWiz Grand Challenge, CVPR 2018",
    requires="folder with Annotations/*.json (or *.json) and train/, val/, test/",
    notes="Answering 'unanswerable' is part of the task. "
    "Counts as published; the layout is tested on a miniature made by us, the full set was not at hand. "
    "Test answers are not public.",
)


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The questions of `split` in file order; each image has one, so its file name is the question's id."""
    path = find_file(source, f"Annotations/{split}.json", f"annotations/{split}.json", f"{split}.json")
    images = find_file(source, split, f"images/{split}")
    for number, record in iterate_objects(path):
        place = f"{path}, record {number}"
        name = get_field(record, "image", str, place)
        labelled = split != "test"
        yield Example(
            image=image_in(images, name, place),
            image_id=name,
            question=get_field(record, "question", str, place),
            question_id=name,
            answers=annotators(get_field(record, "answers", list, place), place) if labelled else (),
            question_type=get_field(record, "answer_type", str, place) if labelled else "",
            extra={"answerable": bool(get_field(record, "answerable", int, place))} if labelled else {},
        )
