"""CLEVR v1.0: rendered scenes of simple shapes, questions with functional programs.

Reads the published files, unchanged: questions/CLEVR_train_questions.json (val, test) and
images/train/CLEVR_train_000000.png. The question type is the family of the program's last function (exist, count,
compare_integer, query, compare), as the paper reports accuracy; `extra["question_family_index"]` keeps the template.
Test has neither programs nor answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.adapters._published import find_file, get_field, image_in, optional_field
from data_prep.readers.json_stream import iterate_objects
from mt2st.data.card import Answer, DatasetCard, Example
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="clevr",
    title="CLEVR v1.0",
    task="vqa",
    source="cs.stanford.edu/people/jcjohns/clevr/",
    revision="1.0",
    licence="CC-BY-4.0",
    splits={"train": 699989, "val": 149991, "test": 149988},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Johnson et al., CLEVR, CVPR 2017",
    requires="folder CLEVR_v1.0 with questions/ and images/",
    notes="One answer a question. "
    "Counts as published; the layout is tested on a miniature made by us, the full set was not at hand.",
)

_FAMILIES = {
    "exist": "exist",
    "count": "count",
    "equal_integer": "compare_integer",
    "less_than": "compare_integer",
    "greater_than": "compare_integer",
}


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The questions of `split` in file order."""
    path = find_file(source, f"questions/CLEVR_{split}_questions.json", f"CLEVR_{split}_questions.json")
    images = find_file(source, f"images/{split}")
    for number, record in iterate_objects(path, "questions"):
        place = f"{path}, record {number}"
        name = get_field(record, "image_filename", str, place)
        labelled = "answer" in record or split != "test"
        family = optional_field(record, "question_family_index", int, place)
        yield Example(
            image=image_in(images, name, place),
            image_id=name,
            question=get_field(record, "question", str, place),
            question_id=str(get_field(record, "question_index", int, place)),
            answers=(Answer(get_field(record, "answer", str, place)),) if labelled else (),
            question_type=program_family(record["program"], place) if record.get("program") else "",
            extra={"question_family_index": family} if family is not None else {},
        )


def program_family(program: Any, place: str) -> str:
    """The family of a program, by its last function: query_color → "query", equal_shape → "compare"."""
    if not isinstance(program, list) or not program:
        raise Mt2stError(f"{place}, field 'program' is {str(program)[:60]!r}; expected a list of functions")
    # The published files say "function", those of the generator's older versions "type".
    last = program[-1]
    function = get_field(
        last, "function" if isinstance(last, dict) and "function" in last else "type", str, f"{place}, program"
    )
    if function in _FAMILIES:
        return _FAMILIES[function]
    return "query" if function.startswith("query_") else "compare" if function.startswith("equal_") else function
