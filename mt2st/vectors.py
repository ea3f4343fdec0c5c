"""Embeddings as they come in: checked, normalised as a copy, read from files without pickle. Needs no torch.

Every entrance of the package (evaluation, indexes, the search benchmark) takes embeddings through this file, so that a
NaN, a zero vector or a wrong width is the same one-line error everywhere, and the caller's array is never written to.
"""

from __future__ import annotations

import hashlib
import json
import math
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mt2st.errors import Mt2stError

_ROWS_PER_BLOCK = 256  # of float64 scratch: 1 MB at width 512, which stays in the cache
_ROWS_PER_WRITE = 4096
_UNIT_TOLERANCE = 1e-5
_LARGEST_LENGTH = 1e18  # so that squares and products stay within float32
_SAFETENSORS_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32}
_LARGEST_HEADER = 100_000_000
_MOST_AXES = 32
_DTYPES = (np.float16, np.float32, np.float64, np.int8, np.uint8)


def as_matrix(name: str, embeddings: Any, width: int | None = None) -> NDArray[Any]:
    """A NumPy view (no copy where possible) of `embeddings` [N, E] in float16, float32, float64, int8 or uint8.

    Args:
        name: how errors call it.
        embeddings: a NumPy array, a torch tensor on any device (bfloat16 comes back as float32), or the path of an
            `.npy` file, which is memory-mapped.
        width: the E it must have; None = any.

    Raises:
        Mt2stError: not two-dimensional, of another type, width 0 or another one than asked for.
    """
    if isinstance(embeddings, Path):
        embeddings = read_vectors(embeddings).get("")
    if hasattr(embeddings, "detach"):
        tensor = embeddings.detach().cpu()
        embeddings = tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    if not isinstance(embeddings, np.ndarray):
        raise Mt2stError(
            f"{name} is a {type(embeddings).__name__}, not an array; give a NumPy array or torch tensor [N, E]"
        )
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise Mt2stError(
            f"{name} has shape {embeddings.shape}; give a matrix [N, E], one embedding a row (one vector: shape [1, E])"
        )
    if embeddings.dtype not in _DTYPES:
        raise Mt2stError(
            f"{name} has type {embeddings.dtype}; give float16, float32 or float64 (int8 and uint8 are taken too), "
            f"such as {name}.astype('float32')"
        )
    if width is not None and embeddings.shape[1] != width:
        raise Mt2stError(
            f"{name} is {embeddings.shape[1]} wide, but {width} is needed; queries and gallery must come from one "
            "model, unprojected or both projected"
        )
    return embeddings


def row_norms(name: str, matrix: NDArray[Any], zeros: bool = False) -> NDArray[np.float64]:
    """Euclidean lengths [N] of the rows, in float64.

    Args:
        name: how errors call the matrix.
        matrix: [N, E].
        zeros: whether zero vectors are allowed, as inner product and L2 take them.

    Raises:
        Mt2stError: a row holds NaN or an infinity, or is a zero vector, which has no direction.
    """
    norms = np.empty(len(matrix), np.float64)
    for start in range(0, len(matrix), _ROWS_PER_BLOCK):
        block = matrix[start : start + _ROWS_PER_BLOCK].astype(np.float64)
        norms[start : start + len(block)] = np.sqrt(np.einsum("ij,ij->i", block, block))
    if (bad := np.flatnonzero(~np.isfinite(norms))).size:
        raise Mt2stError(
            f"{name} has NaN or infinite values (or some above 1e150) in {bad.size} of {len(norms)} rows, first in row "
            f"{bad[0]}; remove those rows"
        )
    if not zeros and (bad := np.flatnonzero(norms == 0)).size:
        raise Mt2stError(
            f"{name} has {bad.size} zero vectors among {len(norms)} rows, first row {bad[0]}; a zero vector has no "
            "direction: remove it"
        )
    return norms


def unit_rows(name: str, embeddings: Any, width: int | None = None, reuse: bool = False) -> NDArray[np.float32]:
    """A float32, C-contiguous *copy* [N, E] with rows of length 1.

    Args:
        name: how errors call the embeddings.
        embeddings: as `as_matrix` takes them.
        width: the E it must have; None = any.
        reuse: give back the array itself, to be read only, if it is of this form already (lengths within 1e-5 of 1).

    Raises:
        Mt2stError: what `as_matrix` and `row_norms` refuse is refused.
    """
    matrix = as_matrix(name, embeddings, width)
    if reuse and matrix.dtype == np.float32 and matrix.flags.c_contiguous:
        squares = np.einsum(
            "ij,ij->i", matrix, matrix
        )  # NaN compares false, so bad rows take the long way to their error
        squares -= 1
        if not len(squares) or (squares.min() >= -2 * _UNIT_TOLERANCE and squares.max() <= 2 * _UNIT_TOLERANCE):
            return matrix
    return divided_rows(matrix, row_norms(name, matrix), slice(None))


def plain_rows(name: str, embeddings: Any, width: int | None = None, reuse: bool = False) -> NDArray[np.float32]:
    """A float32, C-contiguous *copy* [N, E] of finite rows, as they are: for inner product and L2.

    Args:
        name: how errors call the embeddings.
        embeddings: as `as_matrix` takes them; zero vectors too.
        width: the E it must have; None = any.
        reuse: give back the array itself, to be read only, if it is of this form already.

    Raises:
        Mt2stError: what `as_matrix` refuses, NaN, an infinity, or a number that float32 has no room for.
    """
    matrix = as_matrix(name, embeddings, width)
    norms = row_norms(name, matrix, zeros=True)
    if norms.max(initial=0) > _LARGEST_LENGTH:
        raise Mt2stError(
            f"{name} has a row of length {norms.max():.3g}, whose square float32 cannot hold; scale all rows down"
        )
    if reuse and matrix.dtype == np.float32 and matrix.flags.c_contiguous:
        return matrix
    rows = np.empty(matrix.shape, np.float32)
    rows[:] = matrix
    return rows


def divided_rows(
    matrix: NDArray[Any], norms: NDArray[np.float64], rows: slice | NDArray[np.int64]
) -> NDArray[np.float32]:
    """`matrix[rows] / norms[rows]` as a new float32, C-contiguous array.

    Divided in float64 and rounded once, so that scaled duplicates give the same bits nearly always.
    """
    lengths = norms[rows]
    unit = np.empty((len(lengths), matrix.shape[1]), np.float32)
    for start in range(0, len(unit), _ROWS_PER_BLOCK):
        stop = start + _ROWS_PER_BLOCK
        some = matrix[rows[start:stop]] if isinstance(rows, np.ndarray) else matrix[rows][start:stop]
        np.divide(some, lengths[start:stop, None], out=unit[start:stop], casting="same_kind", dtype=np.float64)
    return unit


def write_unit_rows(
    path: Path, matrix: NDArray[Any], norms: NDArray[np.float64], rows: NDArray[np.int64] | None = None
) -> None:
    """Write `divided_rows(matrix, norms, rows)` to the `.npy` file `path`, in blocks. `rows` None = all."""
    count = len(matrix) if rows is None else len(rows)
    with path.open("wb") as stream:
        write_npy_header(stream, np.dtype(np.float32), (count, matrix.shape[1]))
        for start in range(0, count, _ROWS_PER_WRITE):
            some = slice(start, start + _ROWS_PER_WRITE) if rows is None else rows[start : start + _ROWS_PER_WRITE]
            stream.write(divided_rows(matrix, norms, some).tobytes())


def write_npy_header(stream: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """What an `.npy` file of a C-contiguous array begins with."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def matrix_hash(matrix: NDArray[Any]) -> str:
    """SHA-256 (hex) of type, shape and content: what ties an index file to its data set."""
    digest = hashlib.sha256(f"{matrix.dtype.str}{matrix.shape}".encode())
    for start in range(0, len(matrix), _ROWS_PER_BLOCK):
        digest.update(np.ascontiguousarray(matrix[start : start + _ROWS_PER_BLOCK]).tobytes())
    return digest.hexdigest()


def read_vectors(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an `.npy` file (under the name "") or of a `.safetensors` file (under their own names), memory-mapped.

    Never loads a pickle: an `.npy` of objects is refused. bfloat16 tensors come back as float32.

    Raises:
        Mt2stError: missing file, other suffix, torn file, or not an array; the message names the cure.
    """
    if not path.is_file():
        raise Mt2stError(
            f"{path} is not a file; give an .npy or .safetensors file, or a run folder with embeddings.safetensors"
        )
    if path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype.kind not in "biuf":
                raise TypeError(f"numbers of type {array.dtype}")
            return {"": array}
        except (
            ValueError,
            TypeError,
            OverflowError,
            EOFError,
            OSError,
            SyntaxError,
            RecursionError,
            MemoryError,
            tokenize.TokenError,
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Mt2stError(
                f"{path} is not a plain .npy array ({reason}); save it with numpy.save, no object arrays"
            ) from None
    if path.suffix == ".safetensors":
        return dict(_read_safetensors(path))
    raise Mt2stError(
        f"{path} ends in {path.suffix!r}; .npy and .safetensors are read (pickles such as .pt or .pkl never are)"
    )


def _read_safetensors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Memory-mapped tensors: 8 bytes of header length, a JSON header with type, shape and offsets, then the data."""
    cure = "save it again with safetensors.numpy.save_file or safetensors.torch.save_file"
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            if not 2 <= header_bytes <= min(size - 8, _LARGEST_HEADER):
                raise Mt2stError(
                    f"{path} is torn or no safetensors file (header of {header_bytes} bytes in {size}); {cure}"
                )
            header = json.loads(stream.read(header_bytes))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            kind, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            if len(shape) > _MOST_AXES or not all(
                type(number) is int and number >= 0 for number in (*shape, first, last)
            ):
                claimed = f"shape {entry['shape']!r}"[:80] + f" and bytes {first!r} to {last!r}"[:80]
                raise Mt2stError(f"{path}: tensor {name!r} claims {claimed}, which no array has; {cure}")
            dtype = np.dtype(np.uint16 if kind == "BF16" else _SAFETENSORS_DTYPES.get(kind, np.void))
            if dtype == np.void:
                raise Mt2stError(
                    f"{path}: tensor {name!r} has type {kind!r}, which is no embedding; save float16, float32 or "
                    "float64"
                )
            count = math.prod(shape)  # of Python's integers, which do not wrap around
            start = 8 + header_bytes + first
            if last - first != count * dtype.itemsize or start + count * dtype.itemsize > size:
                raise Mt2stError(f"{path} is torn: tensor {name!r} does not fit into {size} bytes; {cure}")
            values: NDArray[Any] = np.memmap(path, dtype, "r", start, (count,)) if count else np.empty(0, dtype)
            if kind == "BF16":  # the upper half of a float32
                values = cast(NDArray[Any], (values.astype(np.uint32) << 16).view(np.float32))
            yield name, values.reshape(shape)
    except Mt2stError:
        raise
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Mt2stError(f"{path} has no readable safetensors header ({type(error).__name__}); {cure}") from None
