"""A-OKVQA: questions on COCO 2017 images with four choices and ten direct answers.

Reads the published files, unchanged: aokvqa_v1p0_train.json (val, test) and train2017/000000299207.jpg (val2017/,
test2017/). The right choice is `extra["correct_choice"]`; the direct answers are the example's answers. Test has
neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._published import find_file, get_field, get_strings, image_in, optional_field
from data_prep.readers.json_stream import iterate_objects
from mt2st.data.card import Answer, DatasetCard, Example
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="aokvqa",
    title="A-OKVQA",
    task="vqa",
    source="allenai.org/project/a-okvqa",
    revision="v1.0",
    licence="Apache-2.0 (annotations); images: Flickr terms, by COCO",
    splits={"train": 17056, "val": 1145, "test": 6702},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Schwenk et al., A-OKVQA, ECCV 2022",
    requires="folder with aokvqa_v1p0_*.json and train2017/, val2017/, test2017/",
    notes="Two tasks in one: direct answer (`answers`), and multiple choice (`choices` with extra correct_choice). "
    "The official direct-answer score is min(1, matches / 3) without leaving annotators out. "
    "Counts as published; the full set was not at hand.",
)


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The questions of `split` in file order."""
    path = find_file(source, f"aokvqa_v1p0_{split}.json", f"annotations/aokvqa_v1p0_{split}.json")
    images = find_file(source, f"{split}2017", f"images/{split}2017", f"coco/{split}2017")
    for number, record in iterate_objects(path):
        place = f"{path}, record {number}"
        image_id = get_field(record, "image_id", int, place)
        choices = get_strings(record, "choices", place)
        extra: dict[str, str | bool] = {}
        answers: tuple[Answer, ...] = ()
        if "direct_answers" in record or split != "test":
            answers = tuple(
                Answer(text, str(at)) for at, text in enumerate(get_strings(record, "direct_answers", place))
            )
            at = get_field(record, "correct_choice_idx", int, place)
            if not 0 <= at < len(choices):
                raise Mt2stError(f"{place}, field 'correct_choice_idx' is {at}, but there are {len(choices)} choices")
            extra = {
                "correct_choice": choices[at],
                "difficult_direct_answer": bool(optional_field(record, "difficult_direct_answer", bool, place)),
            }
        yield Example(
            image=image_in(images, f"{image_id:012d}.jpg", place),
            image_id=str(image_id),
            question=get_field(record, "question", str, place),
            question_id=get_field(record, "question_id", str, place),
            answers=answers,
            choices=choices,
            extra=extra,
        )
