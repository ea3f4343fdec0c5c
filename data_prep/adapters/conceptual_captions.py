"""Conceptual Captions 3M: web images with cleaned alt texts, published as lists of caption and address.

The images must be fetched by the user; two layouts are read:
    tar shards    train/00000.tar … (and val/), as webdataset tools write them: x.jpg, x.txt, x.json
    loose files   the published Train_GCC-training.tsv (or Train-GCC-training.tsv) and train/<line>.jpg,
                  Validation_GCC-1.1.0-Validation.tsv and val/<line>.jpg;
                  <line> is the line's number from 0, in any number of digits
Lines without a file are dead addresses; they are left out and counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.adapters._published import find_file
from data_prep.readers.shards import IMAGE_SUFFIXES, read_shard
from mt2st.data.card import DatasetCard, Example
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="conceptual_captions",
    title="Conceptual Captions 3M",
    task="retrieval",
    source="ai.google.com/research/ConceptualCaptions/download",
    revision="1.1.0",
    licence="Google's own: free for any purpose, no warranty; images: their owners'",
    splits={"train": None, "val": None},
    main_metric="hit_rate@1",
    paper="Sharma et al., Conceptual Captions, ACL 2018",
    requires="folder with train/ and val/: tar shards, or images beside the published .tsv files",
    notes="Published with 3,318,333 training and 15,840 validation captions; "
    "what remains depends on when the images were fetched, so no count is declared. The full set was not at hand.",
)

_LISTS = {
    "train": ("Train_GCC-training.tsv", "Train-GCC-training.tsv"),
    "val": ("Validation_GCC-1.1.0-Validation.tsv", "Validation_GCC-1.1.0-Validation.tsv".lower()),
}


def left_out(*, source: Path, splits: Sequence[str]) -> dict[str, int]:
    """Lines of the published lists that have no image, by split; shards have none to compare with."""
    found = {}
    for split in splits:
        if not _shards(split, source):
            path = find_file(source, *_LISTS[split])
            found[f"{split}_dead_addresses"] = sum(1 for _ in _lines(path)) - len(_files(source / split))
    return found


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The pictures of `split`, in the order of shards or of the list."""
    archives = _shards(split, source)
    if archives:
        for archive in archives:
            yield from read_shard(archive)
        return
    path = find_file(source, *_LISTS[split])
    files = _files(find_file(source, split))
    for number, caption in enumerate(_lines(path)):
        if number in files:
            yield Example(image=source / split / files[number], image_id=str(number), captions=(caption,))


def _lines(path: Path) -> Iterator[str]:
    """The captions of a list; each line is caption, tab, address."""
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream):
                caption, tab, _ = line.rstrip("\n").partition("\t")
                if not tab:
                    raise Mt2stError(f"{path}, line {number + 1}: {line[:60]!r} is not caption, tab, address")
                yield caption
    except UnicodeDecodeError as error:
        raise Mt2stError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); download it again"
        ) from None


def _files(folder: Path) -> dict[int, str]:
    """Line number → file name, of the images named by a number."""
    found: dict[int, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, _, suffix = entry.name.partition(".")
            if stem.isdecimal() and suffix.lower() in IMAGE_SUFFIXES:
                found[int(stem)] = entry.name
    return found


def _shards(split: str, source: Path) -> list[Path]:
    """The tar shards of `split`; empty for loose files."""
    return sorted((source / split).glob("*.tar"))
