"""A suite in one file, `runs.zip`: all records and per-item arrays, small enough to be kept in a repository.

The report reads it in place of run folders. It is a ZIP file of two members, which any unzip opens:

    runs.json             the records (run.json of every ended run) in the order of their ids; sealed
    arrays.safetensors    the arrays: one tensor [n, R] for each name, type and shape

n values of an array lie in a column, and column r belongs to the r-th record that lists such an array. What the runs
say of one item thus lies together, and compresses well, for they agree on most items. Integers are kept in the smallest
type that holds them all, everything else bit for bit. An array may be rounded; then its multiples of a step are kept.

Equal runs give equal bytes (with the same zlib). Nothing is extracted to a path, nothing is unpickled, and what is
unpacked is limited in size.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from benchmarks.records.check import verify_values
from mt2st.errors import Mt2stError
from mt2st.files import canonical_json, content_hash, write_bytes

PACK_FILE = "runs.zip"
PACK_VERSION = 1
_RECORDS, _ARRAYS = "runs.json", "arrays.safetensors"
_LARGEST_BYTES = {_RECORDS: 64 << 20, _ARRAYS: 1 << 30}  # unpacked; a suite of 300 runs × 12,000 items has 3 and 20 MB
_CURE = "get the file again (git checkout), or pack the runs again (python -m benchmarks publish)"
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, SafetensorError, OSError, EOFError, MemoryError),
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
)
_FLOATS = ("float16", "float32", "float64")
_INTEGERS = tuple(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("u", ""))

Column = tuple[str, int]  # a tensor's name, and which of its columns


@dataclass(frozen=True)
class PackedSuite:
    """What a pack holds, verified.

    Attributes:
        path: the file.
        records: run.json of every run by run id, without its seal.
        steps: array → step that its values were rounded to.
    """

    path: Path
    records: Mapping[str, Mapping[str, Any]]
    steps: Mapping[str, float]
    _columns: Mapping[str, Mapping[str, Column]]
    _tensors: Mapping[str, np.ndarray]

    def items(self, run_id: str) -> dict[str, np.ndarray]:
        """The per-item arrays of a run, of the types and shapes that its record lists.

        Raises:
            Mt2stError: a stored array does not fit the record.
        """
        listed = _listed(self.records[run_id])
        try:
            return {name: self._array(name, dtype, shape, run_id) for name, (dtype, shape) in listed.items()}
        except _DAMAGE as error:
            raise _unreadable(self.path, error) from error

    def _array(self, name: str, dtype: str, shape: list[int], run_id: str) -> np.ndarray:
        tensor, column = self._columns[run_id][name]
        stored = self._tensors[tensor][:, column]
        if name in self.steps:
            with np.errstate(over="raise"):
                stored = (stored * np.float64(self.steps[name])).astype(dtype)
        return stored.astype(dtype).reshape(shape)


def write_pack(
    path: Path,
    runs: Iterable[tuple[Mapping[str, Any], Mapping[str, np.ndarray]]],
    steps: Mapping[str, float] | None = None,
) -> int:
    """Write the ended runs of a suite to `path`, atomically; returns the file's bytes.

    Args:
        runs: (run.json without its seal, item arrays) of every run, in any order.
        steps: array → step > 0; the array's values are rounded to multiples of it, wherever a run has such an array.
            Only this loses anything. The record keeps the metrics computed before.

    Raises:
        Mt2stError: two runs have one id, arrays are not those that the record lists, or cannot be rounded.
    """
    ordered = sorted(runs, key=lambda run: str(run[0]["run_id"]))
    if len({record["run_id"] for record, _ in ordered}) != len(ordered):
        raise Mt2stError(f"{path}: two runs have one id; pack the runs of one suite")
    steps = {name: float(step) for name, step in (steps or {}).items()}
    columns: dict[str, list[np.ndarray]] = {}
    for record, items in ordered:
        listed = _listed(record)
        if {name: (str(array.dtype), list(array.shape)) for name, array in items.items()} != listed:
            raise Mt2stError(
                f"{path}: arrays of {record['run_id']} are not those that its record lists; repeat the run"
            )
        for name, (dtype, shape) in listed.items():
            values = items[name].reshape(-1)
            stored = _rounded(values, steps[name], f"{name!r} of {record['run_id']}") if name in steps else values
            columns.setdefault(_tensor_name(name, dtype, shape), []).append(stored)
    content = save({name: _smallest(np.stack(arrays, axis=1)) for name, arrays in columns.items()})
    value: dict[str, Any] = {
        "pack_version": PACK_VERSION,
        "runs": [record for record, _ in ordered],
        "steps": steps,
        "arrays_sha256": sha256(content).hexdigest(),
    }
    sealed = canonical_json({**value, "sha256": content_hash(value)}).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, member in ((_RECORDS, sealed), (_ARRAYS, content)):
            info = zipfile.ZipInfo(name)  # dated 1980: equal content, equal bytes
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(info, member, compresslevel=9)
    write_bytes(path, packed.getvalue())
    return len(packed.getvalue())


def read_pack(path: Path) -> PackedSuite:
    """Read and verify a pack.

    Raises:
        Mt2stError: the file is missing, damaged, foreign, or larger than any pack; one line with the cure.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.namelist() != [_RECORDS, _ARRAYS]:
                raise Mt2stError(f"{path} holds other members than {_RECORDS} and {_ARRAYS}; {_CURE}")
            records, arrays = (_member(archive, path, name) for name in (_RECORDS, _ARRAYS))
        value = json.loads(records)
        seal = value.pop("sha256")
        if content_hash(value) != seal or value["arrays_sha256"] != sha256(arrays).hexdigest():
            raise Mt2stError(f"{path} does not match its checksum, so it is torn or edited; {_CURE}")
        if value["pack_version"] != PACK_VERSION:
            found = repr(value["pack_version"])[:60]
            raise Mt2stError(f"{path} has pack version {found}, this code reads {PACK_VERSION}; {_CURE}")
        return _verified(path, value, load(arrays))
    except FileNotFoundError:
        raise Mt2stError(f"{path} is missing; {_CURE}") from None
    except Mt2stError:
        raise
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> Mt2stError:
    text = " ".join(str(error).split()) or type(error).__name__
    return Mt2stError(f"{path} cannot be read ({text:.200}); {_CURE}")


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    """A member's bytes, in memory; never more than it says it has, nor than a suite can have."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Mt2stError(f"{path}: {name} is neither stored nor deflated; {_CURE}")
    if info.file_size > _LARGEST_BYTES[name]:
        raise Mt2stError(
            f"{path}: {name} has {info.file_size} bytes unpacked, more than the {_LARGEST_BYTES[name]} of any suite; "
            f"{_CURE}"
        )
    with archive.open(info) as stream:
        return stream.read(info.file_size + 1)  # with a number, zipfile unpacks no more than that at once


def _verified(path: Path, value: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> PackedSuite:
    """The suite, once every record is checked and the arrays are those that the records list, no more and no fewer."""
    records: dict[str, Mapping[str, Any]] = {}
    columns: dict[str, dict[str, Column]] = {}
    counts: dict[str, int] = {}
    kinds: dict[str, tuple[str, str, list[int]]] = {}  # tensor → array, its type and its shape
    for record in value["runs"]:
        verify_values(path, record)
        run_id = record["run_id"]
        if run_id in records or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
            raise Mt2stError(f"{path}: run id {run_id[:60]!r} is there twice, or is no folder's name; {_CURE}")
        records[run_id], columns[run_id] = record, {}
        for name, (dtype, shape) in _listed(record).items():
            tensor = _tensor_name(name, dtype, shape)
            kinds[tensor] = name, dtype, shape
            columns[run_id][name] = tensor, counts.get(tensor, 0)
            counts[tensor] = counts.get(tensor, 0) + 1
    steps = value["steps"]
    if not all(type(step) is float and 0 < step < math.inf for step in steps.values()):
        raise Mt2stError(f"{path}: steps = {str(steps)[:60]} are no numbers > 0; {_CURE}")
    if set(tensors) != set(kinds):
        raise Mt2stError(f"{path}: the arrays are not those that the records list; {_CURE}")
    for tensor, (name, dtype, shape) in kinds.items():
        wanted = _INTEGERS if name in steps or dtype in _INTEGERS else (dtype,)
        size = math.prod(shape) if all(type(side) is int and side >= 0 for side in shape) else -1
        fits = tensors[tensor].shape == (size, counts[tensor]) and str(tensors[tensor].dtype) in wanted
        if not fits or dtype not in ("bool", *_INTEGERS, *_FLOATS) or (name in steps and dtype not in _FLOATS):
            raise Mt2stError(f"{path}: array {tensor[:60]!r} is not of the kind that its name says; {_CURE}")
    return PackedSuite(path, records, steps, columns, tensors)


def _listed(record: Mapping[str, Any]) -> dict[str, tuple[str, list[int]]]:
    """Array → (type, shape), as the record lists them."""
    return {name: (array["dtype"], array["shape"]) for name, array in record["items"].get("arrays", {}).items()}


def _tensor_name(name: str, dtype: str, shape: list[int]) -> str:
    """Such as "score float32 [360]"."""
    return f"{name} {dtype} {shape}"


def _smallest(values: np.ndarray) -> np.ndarray:
    """Integers in the smallest type that holds them all; everything else as it is."""
    if values.dtype.kind not in "iu" or not values.size:
        return values
    low, high = int(values.min()), int(values.max())
    ranges = ((kind, np.iinfo(kind)) for kind in _INTEGERS)
    return values.astype(next(kind for kind, held in ranges if held.min <= low and high <= held.max))


def _rounded(values: np.ndarray, step: float, place: str) -> np.ndarray:
    """How often `step` goes into each value, rounded to the nearest."""
    if values.dtype.kind != "f" or not np.isfinite(values).all() or not 0 < step < math.inf:
        raise Mt2stError(f"{place} cannot be rounded to {step!r}; name an array of finite floats, a step such as 0.001")
    multiples = np.rint(values.astype(np.float64) / step)
    if np.abs(multiples).max(initial=0.0) > 2**31:
        raise Mt2stError(f"{place} cannot be rounded to {step!r}, its values are too large; take a larger step")
    return multiples.astype(np.int64)
