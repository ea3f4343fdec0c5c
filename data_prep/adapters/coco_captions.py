"""COCO captions in Karpathy's splits: five captions (a few images have more), the retrieval benchmark "COCO 5k".

Reads the published files, unchanged: dataset_coco.json, and train2014/COCO_train2014_….jpg, val2014/COCO_val2014_….jpg.
train is Karpathy's train and restval together, 113,287 images. `--option other_counts=yes` accepts a part of the set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._karpathy import karpathy_examples
from data_prep.adapters._published import find_file
from data_prep.readers.rows import yes
from mt2st.data.card import DatasetCard, Example

CARD = DatasetCard(
    name="coco_captions",
    title="COCO captions (Karpathy splits)",
    task="retrieval",
    source="cocodataset.org; splits: cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    revision="2014; dataset_coco.json",
    licence="CC-BY-4.0 (annotations); images: Flickr terms",
    splits={"train": 113287, "val": 5000, "test": 5000},
    main_metric="hit_rate@1",
    paper="Chen et al., Microsoft COCO Captions, 2015; Karpathy and Fei-Fei, CVPR 2015",
    requires="folder with dataset_coco.json, train2014/ and val2014/",
    notes="Papers evaluate on 5 captions an image; 25,010 captions of the 5,000 test images are kept here, "
    "the first five can be told by `caption_ranks()`. Counts are checked at preparing; the full set was not at hand.",
)


def examples(split: str, *, source: Path, other_counts: str | bool = False) -> Iterator[Example]:
    """The images of `split` in file order, each with its captions."""
    wanted = ("train", "restval") if split == "train" else (split,)
    path = find_file(source, "dataset_coco.json")
    return karpathy_examples(CARD, split, wanted, path, (source, source / "images"), yes(other_counts))
