"""A suite in one file, `runs.zip`: every run.json and every per-item array, small enough to be kept in a repository.

The report reads it in place of run folders. It is a ZIP file of two members, which any unzip opens:

    runs.json             the records of the ended runs with their seals, and where each run's arrays are (sealed)
    arrays.safetensors    the arrays, each distinct one once

**Form of an array.** Arrays of one name, type and shape lie together, V distinct variants of n values. Equal numbers of
a test split are few (scores, classes, ranks), so a variant is stored as places in a codebook: 1 bit each for up to two
values, else 8 or 16 bits, value by value across the variants, because runs agree on most items. Where nearly every
value is its own (confidences), the bytes are stored plane by plane instead. Codebook and planes hold the very bits, so
arrays come back as they were, NaN and −0 included.

Equal runs give equal bytes. Nothing is extracted by name, nothing is unpickled, and every size is limited.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
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
_LARGEST = {_RECORDS: 256 << 20, _ARRAYS: 2 << 30}  # bytes once unpacked
_CURE = "get the file again (git checkout), or pack the runs again (python -m benchmarks publish)"
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, TypeError, ValueError, IndexError, AttributeError),
    *(RecursionError, RuntimeError, MemoryError, NotImplementedError, SafetensorError, OverflowError),
)
_DTYPES = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
_DTYPES |= {"float16", "float32", "float64"}


@dataclass(frozen=True)
class PackedSuite:
    """What a pack holds.

    Attributes:
        path: the file.
        records: run.json of every run, without its seal, by run id.
    """

    path: Path
    records: Mapping[str, Mapping[str, Any]]
    _places: Mapping[str, Mapping[str, tuple[int, int]]]  # run id → array → (group, variant)
    _groups: tuple[Mapping[str, Any], ...]
    _tensors: Mapping[str, np.ndarray]

    def items(self, run_id: str) -> dict[str, np.ndarray]:
        """The per-item arrays of a run: name → array, with the values and the type that they had in its folder."""
        return {
            name: np.array(self._decoded[group][variant]) for name, (group, variant) in self._places[run_id].items()
        }

    @cached_property
    def _decoded(self) -> list[np.ndarray]:
        """Variants [V, *shape] of each group."""
        return [_decode(group, place, self._tensors) for place, group in enumerate(self._groups)]


def write_pack(
    path: Path,
    runs: Iterable[tuple[Mapping[str, Any], Mapping[str, np.ndarray]]],
    *,
    rounded: Mapping[str, float] | None = None,
) -> int:
    """Write the runs of a suite to `path`, atomically; returns the file's bytes.

    Args:
        runs: (run.json without its seal, item arrays) of every run, in any order.
        rounded: array → step: its values are rounded to multiples of the step. Only this loses anything; run.json keeps
            the metrics computed before.

    Raises:
        Mt2stError: two runs have one id, or a step is no positive number or names no floating-point array.
    """
    ordered = sorted(runs, key=lambda run: str(run[0]["run_id"]))
    ids = [str(record["run_id"]) for record, _ in ordered]
    if len(set(ids)) != len(ids):
        raise Mt2stError(f"{path}: two runs have one id; pack the runs of one suite")
    variants, places = _distinct(ordered, rounded or {})
    groups: list[dict[str, Any]] = []
    tensors: dict[str, np.ndarray] = {}
    for place, ((name, dtype, shape), arrays) in enumerate(variants.items()):
        group = {"name": name, "dtype": dtype, "shape": list(shape), "variants": len(arrays)}
        form, parts = _encode(np.stack(arrays).reshape(len(arrays), -1))
        groups.append(group | {"form": form})
        tensors |= {f"{place:04d}.{part}": tensor for part, tensor in parts.items()}
    content = save(tensors)
    value = {
        "pack_version": PACK_VERSION,
        "runs": [{**record, "sha256": content_hash(record)} for record, _ in ordered],
        "places": places,
        "groups": groups,
        "rounded": dict(rounded or {}),
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
            records, arrays = _member(archive, path, _RECORDS), _member(archive, path, _ARRAYS)
        value = json.loads(records)
        seal = value.pop("sha256")
        whole = content_hash(value) == seal and value["arrays_sha256"] == sha256(arrays).hexdigest()
        if not whole:
            raise Mt2stError(f"{path} does not match its checksum, so it is torn or edited; {_CURE}")
        if value["pack_version"] != PACK_VERSION:
            raise Mt2stError(
                f"{path} has pack version {value['pack_version']!r}, this code reads {PACK_VERSION}; {_CURE}"
            )
        return _suite(path, value, load(arrays))
    except FileNotFoundError:
        raise Mt2stError(f"{path} is missing; {_CURE}") from None
    except _DAMAGE as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise Mt2stError(f"{path} cannot be read ({text:.200}); {_CURE}") from error


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    """A member's bytes, read by name into memory; what a member claims about its size is not believed."""
    if archive.namelist() != [_RECORDS, _ARRAYS]:
        raise Mt2stError(f"{path} holds other members than {_RECORDS} and {_ARRAYS}; {_CURE}")
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Mt2stError(f"{path}: {name} is neither stored nor deflated; {_CURE}")
    with archive.open(name) as stream:
        content = stream.read(_LARGEST[name] + 1)
    if len(content) > _LARGEST[name]:
        raise Mt2stError(f"{path}: {name} is larger than {_LARGEST[name] >> 20} MiB, more than any suite; {_CURE}")
    return content


def _suite(path: Path, value: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> PackedSuite:
    """The suite, once every record and every array's place have been checked."""
    groups = tuple(value["groups"])
    for group in groups:
        sizes = [group["variants"], *group["shape"]]
        if group["dtype"] not in _DTYPES or not all(type(size) is int and size >= 0 for size in sizes):
            raise Mt2stError(f"{path}: array {group['name']!r} is no shape and type; {_CURE}")
    records, places = {}, {}
    for sealed in value["runs"]:
        record = {name: field for name, field in sealed.items() if name != "sha256"}
        if content_hash(record) != sealed["sha256"]:
            raise Mt2stError(f"{path}: run {record['run_id']!r} does not match its seal; {_CURE}")
        run_id = record["run_id"]
        verify_values(path, record)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
            raise Mt2stError(f"{path}: run id {run_id!r} is no folder's name; {_CURE}")
        mine = {name: (group, variant) for name, (group, variant) in value["places"][run_id].items()}
        listed = record["items"].get("arrays", {}) if record["items"] else {}
        described = {name: [groups[group]["dtype"], groups[group]["shape"]] for name, (group, _) in mine.items()}
        if described != {name: [array["dtype"], array["shape"]] for name, array in listed.items()}:
            raise Mt2stError(f"{path}: arrays of {run_id!r} are not the ones that its record lists; {_CURE}")
        if any(not 0 <= variant < groups[group]["variants"] or group < 0 for group, variant in mine.values()):
            raise Mt2stError(f"{path}: {run_id!r} has an array that is not there; {_CURE}")
        records[run_id], places[run_id] = record, mine
    suite = PackedSuite(path, records, places, groups, tensors)
    _ = suite._decoded  # now, so that a foreign array is an error of this file and not of a report later
    return suite


# -- arrays ------------------------------------------------------------------------------------------------------------

_Key = tuple[str, str, tuple[int, ...]]  # name, type, shape


def _distinct(
    runs: list[tuple[Mapping[str, Any], Mapping[str, np.ndarray]]], rounded: Mapping[str, float]
) -> tuple[dict[_Key, list[np.ndarray]], dict[str, dict[str, list[int]]]]:
    """Each distinct array once, by key; and run id → array → [group, variant]."""
    keys = sorted({_key(name, array) for _, items in runs for name, array in items.items()})
    for name, step in rounded.items():
        kinds = {np.dtype(dtype).kind for known, dtype, _ in keys if known == name}
        if kinds != {"f"} or not 0 < step < 1e9:
            raise Mt2stError(f"rounding {name!r} to {step!r}: name a floating-point array and a step > 0, say 0.001")
    groups = {key: place for place, key in enumerate(keys)}
    variants: dict[_Key, list[np.ndarray]] = {key: [] for key in keys}
    seen: dict[tuple[_Key, bytes], int] = {}
    places: dict[str, dict[str, list[int]]] = {}
    for record, items in runs:
        mine = places.setdefault(str(record["run_id"]), {})
        for name, array in sorted(items.items()):
            key = _key(name, array)
            if name in rounded:
                array = (np.round(array.astype(np.float64) / rounded[name]) * rounded[name]).astype(array.dtype)
            variant = seen.setdefault((key, array.tobytes()), len(variants[key]))
            if variant == len(variants[key]):
                variants[key].append(np.ascontiguousarray(array))
            mine[name] = [groups[key], variant]
    return variants, places


def _key(name: str, array: np.ndarray) -> _Key:
    return name, str(array.dtype), array.shape


def _encode(values: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
    """Variants [V, n] → form and its tensors."""
    bits = _bits(values)
    book, codes = np.unique(bits, return_inverse=True)
    codes = codes.reshape(bits.shape).T  # [n, V]: what the runs say of one item lies together
    if len(book) <= 2:
        return "bits", {"book": book, "codes": np.packbits(codes.astype(np.uint8).ravel())}
    small = np.uint8 if len(book) <= 1 << 8 else np.uint16
    if len(book) <= 1 << 16 and book.nbytes + codes.size * small().itemsize < bits.nbytes:
        return "codes", {"book": book, "codes": _planes(np.ascontiguousarray(codes.astype(small)))}
    return "planes", {"codes": _planes(bits)}


def _decode(group: Mapping[str, Any], place: int, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """The variants [V, *shape] of a group.

    Raises:
        ValueError, IndexError, KeyError, TypeError: the tensors are not what the group says.
    """
    dtype, shape, count = np.dtype(group["dtype"]), tuple(group["shape"]), group["variants"]
    size = int(np.prod(shape, dtype=object))
    codes = tensors[f"{place:04d}.codes"]
    if group["form"] == "planes":
        bits = _from_planes(codes, np.dtype(f"u{dtype.itemsize}")).reshape(count, size)
    else:
        book = tensors[f"{place:04d}.book"]
        if book.dtype != np.dtype(f"u{dtype.itemsize}"):
            raise ValueError(f"codebook of {group['name']!r} is {book.dtype}")
        if group["form"] == "bits":
            if codes.size != -(-count * size // 8):
                raise ValueError(f"{group['name']!r} has {codes.size} bytes of bits for {count} × {size} values")
            numbers = np.unpackbits(codes, count=count * size)
        else:
            numbers = _from_planes(codes, np.dtype(np.uint8 if len(book) <= 1 << 8 else np.uint16))
        bits = np.ascontiguousarray(book[numbers].reshape(size, count).T)
    if dtype == np.bool_ and bits.size and bits.max() > 1:
        raise ValueError(f"{group['name']!r} holds other values than false and true")
    return bits.view(dtype).reshape(count, *shape)


def _bits(values: np.ndarray) -> np.ndarray:
    """The values' bits as unsigned integers of the same width and shape."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _planes(numbers: np.ndarray) -> np.ndarray:
    """Bytes [itemsize, n], all first (lowest) bytes, then all second ones: the high bytes compress, the low do not."""
    little = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little.reshape(-1).view(np.uint8).reshape(-1, numbers.dtype.itemsize).T)


def _from_planes(planes: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers [n] from their bytes [itemsize, n]."""
    if planes.dtype != np.uint8 or planes.ndim != 2 or len(planes) != dtype.itemsize:
        raise ValueError(f"planes are {planes.dtype} {planes.shape}, not bytes [{dtype.itemsize}, n]")
    return np.ascontiguousarray(planes.T).view(dtype.newbyteorder("<")).reshape(-1).astype(dtype)
