"""NoCaps: captions of Open Images pictures with objects that COCO captions lack; ten captions an image.

Reads the published files, unchanged: nocaps_val_4500_captions.json, nocaps_test_image_info.json, and
val/0013ea2087020901.jpg (or images/, images/val/, val_imgs/; the same for test). `extra["domain"]` is in-domain,
near-domain or out-domain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._published import find_file, get_field, image_in, optional_field
from data_prep.readers.json_stream import iterate_objects
from mt2st.data.card import DatasetCard, Example

CARD = DatasetCard(
    name="nocaps",
    title="NoCaps",
    task="retrieval",
    source="nocaps.org/download",
    revision="2018-12",
    licence="CC-BY-2.0 (annotations and images, by Open Images)",
    splits={"val": 4500, "test": 10600},
    main_metric="hit_rate@1",
    paper="Agrawal et al., nocaps, ICCV 2019",
    requires="folder with nocaps_val_4500_captions.json and val/; for test nocaps_test_image_info.json and test/",
    notes="An evaluation set: it has no training split. Test captions are not public, so its images come without. "
    "Counts as published; the full set was not at hand.",
)


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The images of `split` in file order, each with its captions."""
    path = find_file(source, "nocaps_val_4500_captions.json" if split == "val" else "nocaps_test_image_info.json")
    images = find_file(source, split, f"images/{split}", f"{split}_imgs", "images")
    captions: dict[int, list[str]] = defaultdict(list)
    if split == "val":
        for number, record in iterate_objects(path, "annotations"):
            place = f"{path}, annotation {number}"
            captions[get_field(record, "image_id", int, place)].append(get_field(record, "caption", str, place))
    for number, record in iterate_objects(path, "images"):
        place = f"{path}, image {number}"
        domain = optional_field(record, "domain", str, place)
        yield Example(
            image=image_in(images, get_field(record, "file_name", str, place), place),
            image_id=optional_field(record, "open_images_id", str, place) or get_field(record, "file_name", str, place),
            captions=tuple(captions[get_field(record, "id", int, place)]),
            extra={"domain": domain} if domain else {},
        )
