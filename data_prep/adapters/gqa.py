"""GQA: compositional questions generated from scene graphs, one answer each.

Reads the published files, unchanged:
    train_balanced_questions.json, val_…, testdev_…, test_… (or in questions1.2/)     images/2370799.jpg
    --option questions=all: val_all_questions.json, and the folder train_all_questions/ with its ten parts
    optional: train_sceneGraphs.json, val_sceneGraphs.json (or in sceneGraphs/): location and weather of the scene
Files are streamed: the balanced training questions alone are over a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.adapters._published import find_file, get_field, image_in, optional_field
from data_prep.readers.json_stream import iterate_objects
from mt2st.data.card import Answer, DatasetCard, Example
from mt2st.errors import unknown_name

CARD = DatasetCard(
    name="gqa",
    title="GQA",
    task="vqa",
    source="cs.stanford.edu/people/dorarad/gqa/download.html",
    revision="1.2",
    licence="CC-BY-4.0",
    splits={"train": 943000, "val": 132062, "testdev": 12578, "test": 95336},
    main_metric="vqa_accuracy",
    protocol="official-2021",
    paper="Hudson and Manning, GQA, CVPR 2019",
    requires="folder with *_balanced_questions.json (or questions1.2/) and images/; "
    "sceneGraphs/ if scene types are wanted",
    notes="GQA's accuracy is the exact match with one answer. "
    "Counts are the balanced questions' as published; with questions=all they are "
    "14,305,356 / 2,011,853 / 172,174 / 1,340,048. The full set was not at hand. Test answers are not public.",
)

QUESTIONS = ("balanced", "all")


def examples(split: str, *, source: Path, questions: str = "balanced") -> Iterator[Example]:
    """The questions of `split` in file order; `questions`: "balanced" or "all"."""
    if questions not in QUESTIONS:
        raise unknown_name("option 'questions' of dataset 'gqa'", questions, QUESTIONS)
    name = f"{split}_{questions}_questions"
    found = find_file(source, f"{name}.json", name, f"questions1.2/{name}.json", f"questions1.2/{name}")
    paths = sorted(found.glob("*.json"), key=lambda path: (len(path.stem), path.stem)) if found.is_dir() else [found]
    images = find_file(source, "images")
    scenes = _scenes(source, split)
    for path in paths:
        for question_id, record in iterate_objects(path):
            place = f"{path}, question {question_id}"
            image_id = get_field(record, "imageId", str, place)
            types: dict[str, Any] = optional_field(record, "types", dict, place) or {}
            named = {
                f"{kind}_type": optional_field(types, kind, str, place)
                for kind in ("structural", "semantic", "detailed")
            }
            extra = {name: value for name, value in named.items() if value}
            yield Example(
                image=image_in(images, f"{image_id}.jpg", place),
                image_id=image_id,
                question=get_field(record, "question", str, place),
                question_id=question_id,
                answers=(Answer(get_field(record, "answer", str, place)),)
                if "answer" in record or split != "test"
                else (),
                question_type=extra.get("structural_type", ""),
                extra={**extra, **scenes.get(image_id, {})},
            )


def _scenes(source: Path, split: str) -> dict[str, dict[str, str]]:
    """Image id → location and weather, where scene graphs are at hand and say so."""
    names = [source / f"{split}_sceneGraphs.json", source / "sceneGraphs" / f"{split}_sceneGraphs.json"]
    path = next((name for name in names if name.exists()), None)
    found: dict[str, dict[str, str]] = {}
    for image_id, graph in iterate_objects(path) if path else ():
        place = f"{path}, image {image_id}"
        facts = {key: optional_field(graph, key, str, place) for key in ("location", "weather")}
        if any(facts.values()):
            found[image_id] = {key: value for key, value in facts.items() if value}
    return found
