"""What the search benchmark searches: a gallery, queries and, where they are known, the relevant items of each query.

Sources: a run folder (embeddings of a trained checkpoint), a folder of `embed`, a file of the field (ann-benchmarks'
`.hdf5`, big-ann's `.fbin`, `.u8bin`, `.i8bin`), a user's `.npy` or `.safetensors` file, generated vectors. Files are
memory-mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.embeddings.folder import Embeddings, is_embeddings, open_embeddings
from benchmarks.search.formats import BIN_DTYPES, FieldData, checked_neighbors, read_bin, read_ground_truth
from benchmarks.search.hdf5 import SUFFIXES as HDF5_SUFFIXES
from benchmarks.search.hdf5 import read_hdf5
from mt2st.errors import Mt2stError, unknown_name
from mt2st.index import METRICS
from mt2st.vectors import as_matrix, matrix_hash, read_vectors, row_norms

RUN_FILE = "embeddings.safetensors"
GENERATED = "generated"
DISTRIBUTIONS = ("clustered", "gaussian", "uniform")
DIRECTIONS = ("text_to_image", "image_to_text")
_CLUSTER_SPREAD = 0.5  # standard deviation of an item around its centre, in units of the centres' own
_QUERY_NOISE = 0.6  # length of a query's noise over its item's length
_COPIES = 3  # of all vectors in float32: as generated, normalised, and in the index

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SearchData:
    """A search problem.

    Attributes:
        name: for folders and titles.
        gallery: [N, E] float16 to float64, int8 or uint8.
        queries: [Q, E].
        asking: [R], the query of each known pair of query and relevant item; empty where nothing is known.
        relevant: [R], the item of each pair.
        origin: where it comes from, in words and numbers, for the record.
        metric: "cosine", "dot" (inner product) or "euclidean" (L2).
        neighbors: [Q, K], the true neighbours that the file names, nearest first; None = it names none.
    """

    name: str
    gallery: NDArray[Any]
    queries: NDArray[Any]
    asking: Ints
    relevant: Ints
    origin: dict[str, Any]
    metric: str = "cosine"
    neighbors: Ints | None = None

    def content_hash(self) -> str:
        """SHA-256 of the gallery: what a saved index belongs to."""
        return matrix_hash(self.gallery)


def load(
    source: str,
    queries: str,
    tensor: str,
    direction: str,
    num_queries: int,
    seed: int,
    results: Path = Path("results"),
    *,
    metric: str = "",
    truth: str = "",
) -> SearchData:
    """The data at `source`: a run folder, a folder of embeddings, a file; "" = the newest retrieval run in `results`.

    A single matrix has no queries of its own: without a file of queries, `num_queries` of its rows, chosen by `seed`,
    are taken out of the gallery to be the queries.

    Args:
        source: see above.
        queries: a file of queries, "" = none.
        tensor: which tensor of a `.safetensors` file.
        direction: of image and text embeddings.
        num_queries: rows to take out.
        seed: of which rows.
        results: where runs lie.
        metric: "cosine", "dot" or "euclidean"; "" = what the file says, else the cosine.
        truth: a file of big-ann's ground truth for these queries; "" = what the file names, else computed.

    Raises:
        Mt2stError: nothing there, not an array, no such tensor, widths that differ, bad values; says how to mend it.
    """
    if direction not in DIRECTIONS:
        raise unknown_name("direction", direction, DIRECTIONS)
    path = Path(source) if source else newest_run(results)
    if is_embeddings(path):
        return _pairs(path, _embedded(open_embeddings(path)), direction)
    file = path / RUN_FILE if path.is_dir() else path
    if path.suffix in HDF5_SUFFIXES:
        return _of_the_field(file, read_hdf5(file), metric)
    arrays = _arrays(file)
    if {"image_embeddings", "text_embeddings", "text_image_index"} <= arrays.keys():
        return _pairs(path, arrays, direction)
    gallery = _matrix(file, arrays, tensor)
    if queries:
        asked = _matrix(Path(queries), _arrays(Path(queries)), tensor)
        as_matrix(queries, asked, gallery.shape[1])
        origin: dict[str, Any] = {"queries": queries}
    else:
        if not 0 < num_queries < len(gallery):
            raise Mt2stError(
                f"{file} has {len(gallery)} rows, too few to take {num_queries} out as queries; give --queries FILE or "
                "fewer"
            )
        rows = np.random.default_rng(seed).permutation(len(gallery))
        asked, gallery = gallery[np.sort(rows[:num_queries])], gallery[np.sort(rows[num_queries:])]
        origin = {"queries": f"{num_queries} rows taken out of the gallery, seed {seed}"}
    neighbors = None
    if truth:
        if not queries:
            raise Mt2stError(f"--truth {truth} belongs to a file of queries; give it with --queries FILE")
        neighbors = checked_neighbors(truth, read_ground_truth(Path(truth))[0], len(asked), len(gallery))
        origin["truth"] = truth
    origin = {"file": str(file), **origin}
    return _checked(
        SearchData(file.stem, gallery, asked, *_nothing_known(), origin, _metric(metric or "cosine"), neighbors)
    )


def generate(
    distribution: str, num_items: int, width: int, num_queries: int, seed: int, metric: str = "cosine"
) -> SearchData:
    """Vectors of a stated distribution.

    Each query is an item plus Gaussian noise 0.6 times as long, and that item is relevant to it.

    Args:
        distribution: "gaussian" (independent normal components: the hardest for every index), "uniform"
            (components in [0, 1]), "clustered" (√N normal centres, items around them at half the centres' own spread:
            nearer to what encoders give).
        num_items: N, at least 2.
        width: E, at least 1.
        num_queries: Q, at least 1; items are drawn with replacement.
        seed: of everything.
        metric: what search goes by.

    Raises:
        Mt2stError: unknown distribution, a number too small, or more vectors than the memory that is available takes.
    """
    if distribution not in DISTRIBUTIONS:
        raise unknown_name("distribution", distribution, DISTRIBUTIONS)
    for name, value, low in (("items", num_items, 2), ("width", width, 1), ("num_queries", num_queries, 1)):
        if value < low:
            raise Mt2stError(f"{name} = {value} must be at least {low}")
    needed, available = _COPIES * 4 * width * (num_items + num_queries), available_bytes()
    if needed > available:
        raise Mt2stError(
            f"{num_items:,} items and {num_queries:,} queries of width {width:,} need about {needed / 1e9:,.1f} GB of "
            f"memory ({_COPIES} copies in float32), but {available / 1e9:,.1f} GB are available; give fewer --items or "
            "--num-queries, or a smaller --width"
        )
    rng = np.random.default_rng(seed)
    if distribution == "uniform":
        gallery = rng.random((num_items, width), dtype=np.float32)
    else:
        gallery = rng.standard_normal((num_items, width), dtype=np.float32)
    if distribution == "clustered":
        centres = rng.standard_normal((max(1, round(num_items**0.5)), width), dtype=np.float32)
        gallery *= _CLUSTER_SPREAD
        gallery += centres[rng.integers(0, len(centres), num_items)]
    relevant = rng.integers(0, num_items, num_queries)
    noise = rng.standard_normal((num_queries, width), dtype=np.float32)
    lengths = np.linalg.norm(gallery[relevant], axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    queries = gallery[relevant] + _QUERY_NOISE * lengths * noise
    origin = {
        "distribution": distribution,
        "seed": seed,
        "query_noise": _QUERY_NOISE,
        "cluster_spread": _CLUSTER_SPREAD,
    }
    name = f"{distribution}-{num_items}x{width}"
    number = np.arange(num_queries)
    return SearchData(name, gallery, queries.astype(np.float32), number, relevant, origin, _metric(metric or "cosine"))


def available_bytes() -> int:
    """Memory that programs can still take without swapping, as the system estimates it."""
    return int(psutil.virtual_memory().available)


def newest_run(results: Path) -> Path:
    """The retrieval run whose embeddings were written last."""
    files = sorted(results.glob(f"retrieval/*/*/{RUN_FILE}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise Mt2stError(
            f"no run under {results}/retrieval holds {RUN_FILE}; run python -m benchmarks retrieval first, give --data "
            f"FILE, or search generated vectors with --data {GENERATED}"
        )
    return files[-1].parent


def _embedded(whole: Embeddings) -> dict[str, NDArray[Any]]:
    """Arrays under the names that a run's own embeddings have."""
    return {
        "image_embeddings": read_vectors(whole.images)[""],
        "text_embeddings": read_vectors(whole.texts)[""],
        "text_image_index": whole.text_image(),
    }


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Memory-mapped arrays of a file of vectors; a single one has the name ""."""
    return {"": read_bin(file)} if file.suffix in BIN_DTYPES else read_vectors(file)


def _of_the_field(file: Path, found: FieldData, metric: str) -> SearchData:
    """A data set that brings its queries, its true neighbours and its metric along."""
    assert found.queries is not None
    if metric and metric != found.metric:
        raise Mt2stError(f"--metric {metric}, but {file} is searched by {found.metric}; leave --metric out")
    neighbors = found.neighbors
    if neighbors is not None:
        neighbors = checked_neighbors(f"{file}: neighbors", neighbors, len(found.queries), len(found.gallery))
    origin = {"file": str(file), "queries": "test", **({} if neighbors is None else {"truth": "neighbors"})}
    return _checked(
        SearchData(file.stem, found.gallery, found.queries, *_nothing_known(), origin, found.metric, neighbors)
    )


def _metric(name: str) -> str:
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return name


def _pairs(path: Path, arrays: dict[str, NDArray[Any]], direction: str) -> SearchData:
    """Images, texts and which belongs to which: queries of one kind, a gallery of the other."""
    images, texts = np.array(arrays["image_embeddings"]), np.array(arrays["text_embeddings"])
    owner = np.array(arrays["text_image_index"])
    if (
        owner.shape != (len(texts),)
        or owner.dtype.kind not in "iu"
        or (len(owner) and not 0 <= owner.min() <= owner.max() < len(images))
    ):
        raise Mt2stError(
            f"{path}: text_image_index does not give one of {len(images)} images for each of {len(texts)} texts; write "
            "it anew"
        )
    number = np.arange(len(texts))
    name = path.name if path.is_dir() else path.stem
    origin = {"file": str(path), "direction": direction}
    if direction == "text_to_image":
        return _checked(SearchData(name, images, texts, number, owner.astype(np.int64), origin))
    return _checked(SearchData(f"{name}-image-to-text", texts, images, owner.astype(np.int64), number, origin))


def _matrix(file: Path, arrays: dict[str, NDArray[Any]], tensor: str) -> NDArray[Any]:
    """The one matrix of a file, or the one asked for."""
    if tensor and "" not in arrays:
        if tensor not in arrays:
            raise unknown_name(f"tensor of {file}", tensor, arrays)
        return arrays[tensor]
    if len(arrays) != 1:
        raise Mt2stError(
            f"{file} holds {len(arrays)} tensors ({', '.join(sorted(arrays)) or 'none'}); choose one with --tensor NAME"
        )
    return next(iter(arrays.values()))


def _checked(data: SearchData) -> SearchData:
    for name, matrix in (("the gallery", data.gallery), ("the queries", data.queries)):
        where = f"{name} of {data.origin.get('file', data.name)}"
        rows = as_matrix(where, matrix, data.gallery.shape[1] if data.gallery.ndim == 2 else None)
        row_norms(where, rows, zeros=data.metric != "cosine")
        if not len(matrix):
            raise Mt2stError(f"{where} is empty; give at least one vector")
    return data


def _nothing_known() -> tuple[Ints, Ints]:
    return np.empty(0, np.int64), np.empty(0, np.int64)
