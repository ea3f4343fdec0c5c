"""Flickr30k in Karpathy's splits: five captions an image, the retrieval benchmark "Flickr30k 1k".

Reads the published files, unchanged: dataset_flickr30k.json, and flickr30k-images/1000092795.jpg (or images/).
`--option other_counts=yes` accepts a part of the set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._karpathy import karpathy_examples
from data_prep.adapters._published import find_file
from data_prep.readers.rows import yes
from mt2st.data.card import DatasetCard, Example

CARD = DatasetCard(
    name="flickr30k",
    title="Flickr30k (Karpathy splits)",
    task="retrieval",
    source="shannon.cs.illinois.edu/DenotationGraph/; "
    "splits: cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    revision="dataset_flickr30k.json",
    licence="Flickr terms; non-commercial research and education",
    splits={"train": 29000, "val": 1014, "test": 1000},
    main_metric="hit_rate@1",
    paper="Young et al., TACL 2014; Karpathy and Fei-Fei, CVPR 2015",
    requires="folder with dataset_flickr30k.json and flickr30k-images/",
    notes="Counts are checked at preparing; the full set was not at hand.",
)


def examples(split: str, *, source: Path, other_counts: str | bool = False) -> Iterator[Example]:
    """The images of `split` in file order, each with its captions."""
    path = find_file(source, "dataset_flickr30k.json")
    folders = (source / "flickr30k-images", source / "flickr30k_images", source / "images")
    return karpathy_examples(CARD, split, (split,), path, folders, yes(other_counts))
