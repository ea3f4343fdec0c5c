"""The binary files of big-ann and their ground truth.

    .fbin .u8bin .i8bin    two little-endian uint32 (rows, width), then the numbers, row after row
    ground truth           two uint32 (queries, k), then int32 ids [Q, k], then float32 distances [Q, k]

Source: big-ann-benchmarks.com, NeurIPS 2021 and 2023. Nothing is believed: the size that a header claims is compared
with the file's before anything is mapped or allocated. Vectors stay where they are, memory-mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import atomic_path

BIN_DTYPES: dict[str, np.dtype[Any]] = {".fbin": np.dtype("<f4"), ".u8bin": np.dtype("u1"), ".i8bin": np.dtype("i1")}
_HEADER = np.dtype("<u4")
_HEADER_BYTES = 8
_LARGEST_WIDTH = 1 << 20

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FieldData:
    """What a file of the field holds.

    Attributes:
        gallery: [N, E].
        queries: [Q, E]; None = the file has none.
        neighbors: [Q, K] ids of the true neighbours, nearest first; None = the file has none.
        metric: "cosine", "dot" or "euclidean"; "" = the file does not say.
    """

    gallery: NDArray[Any]
    queries: NDArray[Any] | None = None
    neighbors: Ints | None = None
    metric: str = ""


def read_bin(path: Path) -> NDArray[Any]:
    """The vectors [N, E] of a `.fbin`, `.u8bin` or `.i8bin` file, memory-mapped: float32, uint8 or int8.

    Raises:
        Mt2stError: missing, another suffix, torn, or a header that claims another size than the file has.
    """
    if path.suffix not in BIN_DTYPES:
        raise unknown_name("suffix of a vector file", path.suffix, BIN_DTYPES)
    rows, width, size = _bin_header(path, "rows and width")
    dtype = BIN_DTYPES[path.suffix]
    if size != _HEADER_BYTES + rows * width * dtype.itemsize:
        raise Mt2stError(
            f"{path} claims {rows} rows of {width} numbers, which take {_HEADER_BYTES + rows * width * dtype.itemsize} "
            f"bytes, but it has {size}; it is torn or no {path.suffix} file: fetch it again"
        )
    return np.memmap(path, dtype, "r", _HEADER_BYTES, (rows, width))


def read_ground_truth(path: Path) -> tuple[Ints, NDArray[np.float32]]:
    """Ids and distances [Q, k] of big-ann's ground-truth format.

    Raises:
        Mt2stError: missing, torn, a header that claims another size than the file has, or distances that are no
            numbers.
    """
    queries, k, size = _bin_header(path, "queries and k")
    if size != _HEADER_BYTES + queries * k * 8:
        raise Mt2stError(
            f"{path} claims {k} neighbours of {queries} queries, which take {_HEADER_BYTES + queries * k * 8} bytes, "
            f"but it has {size}; it is torn or no ground truth of k nearest neighbours: fetch it again"
        )
    ids = np.fromfile(path, "<i4", queries * k, offset=_HEADER_BYTES).reshape(queries, k)
    distances = np.fromfile(path, "<f4", queries * k, offset=_HEADER_BYTES + 4 * queries * k).reshape(queries, k)
    if not np.isfinite(distances).all():
        raise Mt2stError(f"{path} has distances that are NaN or infinite; fetch it again")
    return ids.astype(np.int64), distances.astype(np.float32)


def write_bin(path: Path, vectors: NDArray[Any]) -> None:
    """Write vectors [N, E] as `.fbin`, `.u8bin` or `.i8bin`, by the suffix, atomically."""
    if path.suffix not in BIN_DTYPES:
        raise unknown_name("suffix of a vector file", path.suffix, BIN_DTYPES)
    with atomic_path(path) as partial, partial.open("wb") as stream:
        stream.write(np.array(vectors.shape, _HEADER).tobytes())
        for start in range(0, len(vectors), 1 << 14):
            stream.write(np.ascontiguousarray(vectors[start : start + (1 << 14)], BIN_DTYPES[path.suffix]).tobytes())


def write_ground_truth(path: Path, ids: Ints, distances: NDArray[Any]) -> None:
    """Write ids and distances [Q, k] in big-ann's ground-truth format, atomically."""
    content = np.array(ids.shape, _HEADER).tobytes() + ids.astype("<i4").tobytes() + distances.astype("<f4").tobytes()
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def checked_neighbors(what: str, neighbors: Ints, queries: int, items: int) -> Ints:
    """`neighbors` [Q, K], or an error where they cannot be the neighbours of these queries among these items."""
    if len(neighbors) != queries:
        raise Mt2stError(f"{what} has neighbours of {len(neighbors)} queries, but there are {queries}; give its own")
    if neighbors.size and not 0 <= neighbors.min() <= neighbors.max() < items:
        raise Mt2stError(
            f"{what} has ids from {neighbors.min()} to {neighbors.max()}, but there are {items} items; give its own"
        )
    ordered = np.sort(neighbors, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise Mt2stError(f"{what} names an item twice for one query; fetch it again")
    return neighbors


def _bin_header(path: Path, words: str) -> tuple[int, int, int]:
    """The two numbers of the header, and the file's size in bytes."""
    if not path.is_file():
        raise Mt2stError(f"{path} is not a file; give an .hdf5, .fbin, .u8bin, .i8bin, .npy or .safetensors file")
    size = path.stat().st_size
    if size < _HEADER_BYTES:
        raise Mt2stError(f"{path} has {size} bytes, too few for a header of {words}; fetch it again")
    first, second = (int(number) for number in np.fromfile(path, _HEADER, 2))
    if not first or not 0 < second <= _LARGEST_WIDTH:
        raise Mt2stError(f"{path} claims {first} and {second} as {words}, which no data set has; fetch it again")
    return first, second, size
