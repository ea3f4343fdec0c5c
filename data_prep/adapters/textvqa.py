"""TextVQA: questions whose answers are read from text in the picture, ten answers each.

Reads the published files, unchanged: TextVQA_0.5.1_train.json (val, test), train_images/0054c91397f2fe05.jpg (for train
and val) and test_images/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._published import find_file, get_field, get_strings, image_in
from data_prep.readers.json_stream import iterate_objects
from mt2st.data.card import Answer, DatasetCard, Example

CARD = DatasetCard(
    name="textvqa",
    title="TextVQA",
    task="vqa",
    source="textvqa.org/dataset/",
    revision="0.5.1",
    licence="CC-BY-4.0",
    splits={"train": 34602, "val": 5000, "test": 5734},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Singh et al., Towards VQA Models That Can Read, CVPR 2019",
    requires="folder with TextVQA_0.5.1_*.json, train_images/ and test_images/",
    notes="Annotators have no ids, so their position is the id. "
    "Counts as published; the layout is tested on a miniature made by us, the full set was not at hand. "
    "Test answers are not public.",
)


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The questions of `split` in file order."""
    path = find_file(source, f"TextVQA_0.5.1_{split}.json")
    images = find_file(source, "test_images" if split == "test" else "train_images")
    for number, record in iterate_objects(path, "data"):
        place = f"{path}, record {number}"
        image_id = get_field(record, "image_id", str, place)
        labelled = "answers" in record or split != "test"
        answers = get_strings(record, "answers", place) if labelled else ()
        yield Example(
            image=image_in(images, f"{image_id}.jpg", place),
            image_id=image_id,
            question=get_field(record, "question", str, place),
            question_id=str(get_field(record, "question_id", int, place)),
            answers=tuple(Answer(text, str(at)) for at, text in enumerate(answers)),
        )
