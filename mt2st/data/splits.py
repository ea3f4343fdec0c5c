"""Prepared data for training: open it, take parts of it, and keep what is evaluated out of what is trained on.

    data = PreparedDataset.open(Path("data/easy_vqa-32px-…"))
    train, test = data.split("train"), data.split("test")
    train_rows, validation_rows = carve_validation(train, 0.1, seed=0)
    assert not leaked_images(train.subset(train_rows), test)

`mt2st.data.prepared` says what lies in the folder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mt2st.data.manifest import FORMAT_VERSION, MANIFEST
from mt2st.data.prepared import PreparedDataset, PreparedSplit
from mt2st.errors import Mt2stError, check_range
from mt2st.randomness import hashed_order

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "PreparedDataset",
    "PreparedSplit",
    "carve_validation",
    "leaked_images",
    "without_leaked",
]


def carve_validation(split: PreparedSplit, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide a split's images into training and validation rows, both ascending.

    Images with equal content, and images of one group (`extra["group"]`), stay together; so the validation part is the
    smallest number of randomly ordered such units that holds at least `fraction` of the images. Units with an image
    marked `extra["pinned"]` stay in training: another split relies on their having been seen.

    Returns:
        (train_rows, validation_rows), int64.

    Raises:
        Mt2stError: `fraction` is outside [0, 1), or a single unit is so large that nothing is left to train on.
    """
    check_range("validation fraction", fraction, 0.0, 0.999, "give the share of training images to validate on")
    if split.num_images == 0:
        raise Mt2stError(
            f"split {split.name!r} of {split.dataset.card.name!r} is empty; nothing to carve a validation part from"
        )
    units = shared_units(split.image_hashes().tolist(), split.extra_values("group"))
    pinned = np.zeros(int(units.max()) + 1, dtype=bool)
    pinned[units[[at for at, mark in enumerate(split.extra_values("pinned")) if mark]]] = True
    order = np.array(hashed_order([f"{at}" for at in range(int(units.max()) + 1)], "validation", seed))
    order = order[~pinned[order]]
    sizes = np.bincount(units)[order]
    before = np.cumsum(sizes) - sizes
    chosen = order[before < fraction * split.num_images]
    held_out = np.isin(units, chosen)
    if held_out.all():
        raise Mt2stError(
            f"split {split.name!r} of {split.dataset.card.name!r}: {fraction:g} of its images for validation leaves "
            "none to train on, as equal images and groups stay together; lower the fraction"
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def leaked_images(train: PreparedSplit, evaluation: PreparedSplit) -> list[str]:
    """Ids of the evaluation images whose content is among the training images, in order. Empty = nothing leaks."""
    rows = np.flatnonzero(np.isin(evaluation.image_hashes(), train.image_hashes()))
    return evaluation.image_ids(rows)


def without_leaked(train: PreparedSplit, evaluation: PreparedSplit) -> PreparedSplit:
    """The training images whose content is not in the evaluation part. Evaluation stays whole."""
    return train.subset(np.flatnonzero(~np.isin(train.image_hashes(), evaluation.image_hashes())))


def shared_units(*columns: Sequence[object]) -> np.ndarray:
    """Number the units of rows that share a value in a column, directly or through other rows: int64 [N].

    Empty values (None, "") are shared by nobody. Numbers ascend with the first row of each unit.
    """
    count = len(columns[0])
    pairs: list[tuple[int, int]] = []  # a row, and the first row with the same value
    for column in columns:
        first: dict[object, int] = {}
        pairs += [(row, first.setdefault(value, row)) for row, value in enumerate(column) if value]
    rows, others = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    shared = coo_array((np.ones(len(rows), dtype=bool), (rows, others)), shape=(count, count))
    component = connected_components(shared, directed=False)[1]
    _, first_rows, unit = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_rows))[unit].astype(np.int64)
