"""Clusters of test items: items of one image, base or word are not independent; the report resamples them together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def clusters_of(names: Sequence[Hashable]) -> np.ndarray:
    """The number of each item's cluster, int32 [N], by first appearance.

    Args:
        names: for each item what its cluster is known by; None or "" = a cluster of its own.
    """
    known: dict[Hashable, int] = {}
    return np.array(
        [
            known.setdefault(("own", place) if name in (None, "") else ("named", name), len(known))
            for place, name in enumerate(names)
        ],
        dtype=np.int32,
    )
