"""VQA-RAD: clinicians' questions on radiology images, open and closed.

Reads the published files, unchanged: "VQA_RAD Dataset Public.json" and "VQA_RAD Image Folder/synpic54610.jpg". Splits
are the published ones: test is where `phrase_type` begins with "test_". Test shares its images, and many rephrased
questions, with train; `--option clean_train=yes` leaves out training questions that are linked to a test question
(`qid_linked_id`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.adapters._published import find_file, get_field, image_in
from data_prep.readers.json_stream import iterate_objects
from data_prep.readers.rows import yes
from mt2st.data.card import Answer, DatasetCard, Example

CARD = DatasetCard(
    name="vqa_rad",
    title="VQA-RAD",
    task="vqa",
    source="osf.io/89kps",
    revision="2018-11",
    licence="CC0-1.0",
    splits={"train": 1797, "test": 451},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Lau et al., A dataset of clinically generated visual questions and answers about radiology images, "
    "Scientific Data 2018",
    requires='folder with "VQA_RAD Dataset Public.json" and "VQA_RAD Image Folder/"',
    notes="The published splits share images: training refuses to start unless the exception is named. "
    "question_type is OPEN or CLOSED, by which accuracy is reported. "
    "Counts as published; the full set was not at hand.",
)


def examples(split: str, *, source: Path, clean_train: str | bool = False) -> Iterator[Example]:
    """The questions of `split` in file order."""
    path = find_file(source, "VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json")
    images = find_file(source, "VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "images")
    linked: set[str] = set()
    if yes(clean_train) and split == "train":
        linked = {
            str(record.get("qid_linked_id")) for _, record in iterate_objects(path) if _is_test(record, f"{path}")
        }
    for number, record in iterate_objects(path):
        place = f"{path}, record {number}"
        if _is_test(record, place) != (split == "test") or str(record.get("qid_linked_id")) in linked:
            continue
        name = get_field(record, "image_name", str, place)
        yield Example(
            image=image_in(images, name, place),
            image_id=name,
            question=get_field(record, "question", str, place),
            question_id=str(get_field(record, "qid", (int, str), place)),
            answers=(Answer(str(get_field(record, "answer", (str, int, float), place))),),
            # The published file has stray blanks in this field.
            question_type=get_field(record, "answer_type", str, place).strip(),
            extra={
                key: str(record[key])
                for key in ("image_organ", "phrase_type", "qid_linked_id")
                if record.get(key) is not None
            },
        )


def _is_test(record: Any, place: str) -> bool:
    return get_field(record, "phrase_type", str, place).startswith("test_")
