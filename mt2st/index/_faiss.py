"""What the FAISS backends share: factory strings, search-time knobs, errors in our words.

FAISS itself is imported when used.

Cosine is the inner product of unit vectors; for L2, FAISS gives squares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from mt2st.errors import Mt2stError
from mt2st.index._base import Floats

EXAMPLE = ":IVF64,Flat?nprobe=8"
EXAMPLES = "Flat, IVF64,Flat, IVF64,PQ16np, HNSW32, SQ8"
_FAISS_NAMES = {"ef_search": "efSearch", "ef_construction": "efConstruction", "k_factor": "k_factor_rf"}
_CENTROIDS = re.compile(r"^IVF(\d+)")


def import_faiss(backend: str) -> Any:
    """The module `faiss`, or an error that names the extra to install."""
    if find_spec("faiss") is None:
        extra = "gpu" if backend == "faiss_gpu" else "cpu"
        raise Mt2stError(
            f"index {backend!r} needs FAISS; install it with pip install 'mt2st[{extra}]' (one of cpu and gpu, never "
            "both)"
        )
    import faiss

    return faiss


@contextmanager
def in_our_words(what: str) -> Iterator[None]:
    """FAISS's exceptions as `Mt2stError`, shortened to their message."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise Mt2stError(f"FAISS refused {what}: {message[-300:]}") from None


def check_trainable(factory: str, count: int) -> None:
    """Raise unless `count` vectors are enough to train an inverted file with that many centroids."""
    found = _CENTROIDS.match(factory)
    if found and not int(found.group(1)):
        raise Mt2stError(f"index factory {factory!r} asks for 0 centroids; √N is usual")
    if found and int(found.group(1)) > count:
        raise Mt2stError(
            f"index factory {factory!r} asks for {found.group(1)} centroids, but the first add() brings {count} items "
            "to train on; use fewer centroids (√N is usual) or add more items at once"
        )


def build(faiss: Any, factory: str, rows: Floats, seed: int, metric: str = "cosine") -> Any:
    """An untrained FAISS index of this factory string; quiet about small training sets, seeded where it clusters."""
    check_trainable(factory, len(rows))
    with in_our_words(f"the factory string {factory!r} for vectors {rows.shape[1]} wide (such as {EXAMPLES})"):
        kind = faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(rows.shape[1], factory, kind)
    inverted = faiss.try_extract_index_ivf(index)  # None where it has no IVF part
    if inverted is not None:
        inverted.cp.seed = seed
        inverted.cp.min_points_per_centroid = 1
    return index


def as_scores(values: Floats, metric: str) -> Floats:
    """FAISS's results as scores, larger is better: squared distances become distances with their sign turned."""
    return -np.sqrt(np.maximum(values, 0)) if metric == "euclidean" else values


def filtering(faiss: Any, index: Any, selector: Any) -> Any:
    """Search parameters that keep what was set on `index`, and look at the selected ids alone."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=filtering(faiss, index.index, selector))
    if isinstance(index, faiss.IndexRefine):
        return faiss.IndexRefineSearchParameters(
            k_factor=index.k_factor, base_index_params=filtering(faiss, index.base_index, selector)
        )
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=index.hnsw.efSearch)
    return faiss.SearchParameters(sel=selector)


def lists_for(num_items: int) -> int:
    """About √N inverted lists, a power of two."""
    return 1 << max(0, round(float(np.log2(max(1.0, num_items**0.5)))))


def probes_for(lists: int) -> str:
    """Values of nprobe to sweep, as a spec lists them."""
    return ",".join(str(value) for value in (1, 2, 4, 8, 16, 32, 64) if value <= lists)


def set_knobs(index: Any, knobs: Mapping[str, int | None], space: Any) -> None:
    """Set the knobs that are not None, by the parameter space of FAISS that suits the index.

    Raises:
        Mt2stError: the index has no such knob.
    """
    for name, value in knobs.items():
        if value is not None:
            with in_our_words(f"the knob {name} = {value} for this kind of index"):
                space.set_index_parameter(index, _FAISS_NAMES.get(name, name), value)
