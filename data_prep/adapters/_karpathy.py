"""Karpathy's split files (dataset_coco.json, dataset_flickr30k.json): images with splits and captions in one list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.adapters._published import check_count, get_field, image_in, optional_field, subfolder
from data_prep.readers.json_stream import iterate_objects
from mt2st.data.card import DatasetCard, Example
from mt2st.errors import Mt2stError


def karpathy_examples(
    card: DatasetCard, split: str, wanted: Sequence[str], path: Path, folders: Sequence[Path], other_counts: bool
) -> Iterator[Example]:
    """The images whose published split is one of `wanted`, in file order.

    Args:
        card: whose declared count of `split` must be met.
        split: our name of the split.
        wanted: the published names it consists of.
        path: the split file.
        folders: where images may lie; the first that exists is taken.
        other_counts: accept other counts than the card's.

    Raises:
        Mt2stError: a broken record, no image folder, or another number of images than declared.
    """
    total = sum(
        get_field(record, "split", str, f"{path}, image {number}") in wanted
        for number, record in iterate_objects(path, "images")
    )
    expected = card.splits[split]
    if expected is not None:
        check_count(card.name, split, total, expected, other_counts)
    root = next((folder for folder in folders if folder.is_dir()), None)
    if root is None:
        raise Mt2stError(
            f"{path.parent} holds no {' or '.join(folder.name for folder in folders)}/; put the images there"
        )
    for number, record in iterate_objects(path, "images"):
        place = f"{path}, image {number}"
        if record["split"] not in wanted:
            continue
        name = get_field(record, "filename", str, place)
        folder = optional_field(record, "filepath", str, place)
        coco_id = optional_field(record, "cocoid", int, place)
        captions = tuple(
            get_field(sentence, "raw", str, place) for sentence in get_field(record, "sentences", list, place)
        )
        yield Example(
            image=image_in(subfolder(root, folder, place) if folder else root, name, place),
            image_id=name if coco_id is None else str(coco_id),
            captions=captions,
            extra={"published_split": record["split"]},
        )
