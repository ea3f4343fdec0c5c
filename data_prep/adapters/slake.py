"""SLAKE: questions on radiology images with a knowledge graph, in English and Chinese.

Reads the published files, unchanged: train.json, validation.json (or validate.json), test.json, and
imgs/xmlab1/source.jpg. `--option language=en` (default), zh, or all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._published import find_file, get_field, image_in
from data_prep.readers.json_stream import iterate_objects
from mt2st.data.card import Answer, DatasetCard, Example
from mt2st.errors import unknown_name

CARD = DatasetCard(
    name="slake",
    title="SLAKE",
    task="vqa",
    source="www.med-vqa.com/slake/",
    revision="1.0",
    licence="CC-BY-4.0",
    splits={"train": 4919, "validation": 1053, "test": 1061},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Liu et al., SLAKE, ISBI 2021",
    requires="folder with train.json, validation.json, test.json and imgs/",
    notes="Counts are the English questions'; with Chinese they are 9,835 / 2,099 / 2,094. "
    "question_type is OPEN or CLOSED. "
    "Counts as published; the layout is tested on a miniature made by us, the full set was not at hand.",
)

LANGUAGES = ("en", "zh", "all")


def examples(split: str, *, source: Path, language: str = "en") -> Iterator[Example]:
    """The questions of `split` in file order, in the chosen language."""
    if language not in LANGUAGES:
        raise unknown_name("option 'language' of dataset 'slake'", language, LANGUAGES)
    names = ("validation.json", "validate.json") if split == "validation" else (f"{split}.json",)
    path = find_file(source, *names)
    images = find_file(source, "imgs")
    for number, record in iterate_objects(path):
        place = f"{path}, record {number}"
        if language not in ("all", get_field(record, "q_lang", str, place)):
            continue
        name = get_field(record, "img_name", str, place)
        kept = ("q_lang", "location", "modality", "base_type", "content_type")
        yield Example(
            image=image_in(images, name, place),
            image_id=name,
            question=get_field(record, "question", str, place),
            question_id=str(get_field(record, "qid", int, place)),
            answers=(Answer(str(get_field(record, "answer", (str, int, float), place))),),
            question_type=get_field(record, "answer_type", str, place).strip(),
            extra={key: str(record[key]) for key in kept if record.get(key) is not None},
        )
