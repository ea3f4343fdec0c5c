"""ann-benchmarks' HDF5 files: data sets read and written, results written.

    train [N, E], test [Q, E], neighbors and distances [Q, K], attribute `distance`: angular, euclidean or dot

Source: github.com/erikbern/ann-benchmarks, "Data sets". Such files come from anywhere, and the HDF5 library can crash
or run for ever on a damaged one. So a process of its own looks at the file, with a limit on its time. It says where the
numbers lie, and this process maps them; what is compressed is written to a folder first. A file can also name other
files and plug-ins to load; that is refused.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.search.formats import FieldData, Ints
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import atomic_path

SUFFIXES = (".hdf5", ".h5")
METRIC_OF = {"angular": "cosine", "euclidean": "euclidean", "dot": "dot"}  # ann-benchmarks' name → ours
DISTANCE_OF = {ours: theirs for theirs, ours in METRIC_OF.items()}
_DEFLATE_LIMIT = 1032  # zlib makes nothing smaller than this part of it (zlib.net/zlib_tech.html)
_KNOWN_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, Fletcher-32, h5py's LZF; others load code
_LARGEST_WIDTH = 1 << 20
_SETS = {"train": "fiu", "test": "fiu", "neighbors": "iu", "distances": "f"}  # name → kinds of numbers
_SECONDS = 20  # of processor time to look at a file, and one more for every 20 MB of it
_BYTES_A_SECOND = 20 << 20
_CURE = "fetch it again, or write it with benchmarks.search.hdf5.write_hdf5"


def read_hdf5(path: Path) -> FieldData:
    """A data set of ann-benchmarks; its numbers stay in the file where they are not compressed.

    Raises:
        Mt2stError: missing, torn, no such data set inside, a data set that lies elsewhere or needs a plug-in, a size
            that the file cannot hold, a metric that is none of angular, euclidean, dot.
    """
    _h5py()
    if not path.is_file():
        raise Mt2stError(f"{path} is not a file; give an .hdf5 file of ann-benchmarks")
    seconds = _SECONDS + path.stat().st_size // _BYTES_A_SECOND
    with TemporaryDirectory(prefix="mt2st-hdf5-") as folder:  # what is mapped from it stays until it is let go
        told = _told(path, folder, seconds)
        return mapped(path, told)


def _told(path: Path, folder: str, seconds: int) -> dict[str, Any]:
    """What a process of its own says of the file, within so many seconds of processor time."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search.hdf5", str(path.resolve()), folder, str(seconds)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HDF5_PLUGIN_PRELOAD": "::"},  # the library then loads no plug-ins
    )
    if done.returncode:
        raise Mt2stError(
            f"{path} crashed the HDF5 library or kept it busy for {seconds} s (exit code {done.returncode}), so it "
            f"is damaged; {_CURE}"
        )
    told: dict[str, Any] = json.loads(done.stdout)
    if "error" in told:
        raise Mt2stError(told["error"])
    return told


def mapped(path: Path, told: Mapping[str, Any]) -> FieldData:
    """The data that `layout` described."""
    found = {}
    for name, (file, kind, offset, shape) in told["sets"].items():
        dtype = np.dtype(kind)
        array: NDArray[Any] = np.memmap(file or path, dtype, "r", offset, tuple(shape))
        plain = dtype in (np.float16, np.float32, np.float64, np.int8, np.uint8) and dtype.isnative
        found[name] = array if plain or name == "neighbors" else array.astype(np.float64)
    neighbors = found.get("neighbors")
    return FieldData(
        found["train"],
        found["test"],
        None if neighbors is None else neighbors.astype(np.int64),
        METRIC_OF[told["distance"]],
    )


def layout(path: Path, folder: Path) -> dict[str, Any]:
    """What an HDF5 file holds: `distance`, and name → (file, type, offset, shape) of each data set.

    Data sets that are compressed or in chunks are written to `folder`; file is "" for those that lie in `path`.

    Raises:
        Mt2stError: see `read_hdf5`.
    """
    with _opened(path) as file:
        distance = file.attrs.get("distance")
        distance = distance.decode("utf-8", "replace") if isinstance(distance, bytes) else distance
        if not isinstance(distance, str):
            raise Mt2stError(f"{path} has no attribute distance, so it is no data set of ann-benchmarks; {_CURE}")
        if distance not in METRIC_OF:
            raise unknown_name(f"attribute distance of {path}", distance[:80], METRIC_OF)
        names = [name for name in _SETS if name in ("train", "test") or file.id.links.exists(name.encode())]
        sets = {name: _place(file, name, path, folder) for name in names}
    shapes = {name: place[3] for name, place in sets.items()}
    if shapes["test"][1] != shapes["train"][1]:
        raise Mt2stError(f"{path}: test is {shapes['test'][1]} wide, train {shapes['train'][1]}; {_CURE}")
    if "distances" in shapes and shapes["distances"] != shapes.get("neighbors"):
        raise Mt2stError(f"{path}: distances and neighbors differ in shape; {_CURE}")
    return {"distance": distance, "sets": sets}


def write_hdf5(
    path: Path,
    gallery: NDArray[Any],
    queries: NDArray[Any],
    neighbors: Ints,
    distances: NDArray[Any],
    metric: str,
    compressed: bool = False,
) -> None:
    """Write a data set as ann-benchmarks has it, atomically; neighbors and distances [Q, K].

    Compressed, it is smaller, but cannot be mapped.
    """
    h5py = _h5py()
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["type"], file.attrs["distance"] = "dense", DISTANCE_OF[metric]
        file.attrs["dimension"], file.attrs["point_type"] = gallery.shape[1], "float"
        ids, lengths = neighbors.astype(np.int32), distances.astype(np.float32)
        for name, content in (("train", gallery), ("test", queries), ("neighbors", ids), ("distances", lengths)):
            file.create_dataset(name, data=content, compression="gzip" if compressed else None)


def write_results(
    path: Path, ids: Ints, distances: NDArray[np.float64], seconds: NDArray[np.float64], attributes: Mapping[str, Any]
) -> None:
    """Write the results of one setting as ann-benchmarks keeps them, atomically.

    Args:
        path: the file.
        ids: [Q, k]; −1 = nothing found.
        distances: [Q, k], ∞ where nothing was found.
        seconds: [Q], the time of each query.
        attributes: ann-benchmarks' own: algo, name, dataset, distance, count, best_search_time, build_time,
            index_size (kB), batch_mode, candidates, run_count, …
    """
    h5py = _h5py()
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(dict(attributes))
        file.create_dataset("times", data=seconds.astype(np.float32))
        file.create_dataset("neighbors", data=ids.astype(np.int32))
        file.create_dataset("distances", data=distances.astype(np.float32))


def _h5py() -> Any:
    if find_spec("h5py") is None:
        raise Mt2stError("HDF5 files need h5py; install it with pip install -e '.[field]'")
    import h5py

    return h5py


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open HDF5 file; what h5py says of a broken one becomes one line."""
    h5py = _h5py()
    if not path.is_file():
        raise Mt2stError(f"{path} is not a file; give an .hdf5 file of ann-benchmarks")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except Mt2stError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise Mt2stError(f"{path} is torn or no HDF5 file of ann-benchmarks ({why}); {_CURE}") from None


def _place(file: Any, name: str, path: Path, folder: Path) -> tuple[str, str, int, list[int]]:
    """Where a two-dimensional data set lies that this very file holds; what cannot be mapped is written to `folder`."""
    import h5py

    links = file.id.links  # h5py's own `in` would follow a link into another file
    if not links.exists(name.encode()) or links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise Mt2stError(f"{path} has no data set {name!r} of its own; {_CURE}")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise Mt2stError(f"{path}: {name!r} is no data set; {_CURE}")
    creation = found.id.get_create_plist()
    if creation.get_external_count() or creation.get_layout() == h5py.h5d.VIRTUAL:
        raise Mt2stError(f"{path}: the data set {name!r} lies in other files; {_CURE}")
    filters = [creation.get_filter(place)[0] for place in range(creation.get_nfilters())]
    if unknown := sorted(set(filters) - _KNOWN_FILTERS):
        raise Mt2stError(f"{path}: the data set {name!r} needs the HDF5 filter {unknown[0]}, a plug-in; {_CURE}")
    shape, dtype = found.shape, found.dtype
    if dtype.kind not in _SETS[name] or dtype.itemsize not in (1, 2, 4, 8):
        raise Mt2stError(f"{path}: the data set {name!r} has type {dtype}, which is not read; {_CURE}")
    if shape is None or len(shape) != 2 or not 0 < shape[1] <= _LARGEST_WIDTH or not shape[0]:
        raise Mt2stError(f"{path}: the data set {name!r} has shape {shape}, not rows and columns; {_CURE}")
    needed, stored, size = math.prod(shape) * dtype.itemsize, int(found.id.get_storage_size()), path.stat().st_size
    if stored > size or needed > (stored * _DEFLATE_LIMIT if filters else stored):
        raise Mt2stError(
            f"{path}: the data set {name!r} claims {shape[0]} × {shape[1]}, {needed} bytes, of which the file of "
            f"{size} bytes stores {stored}; it is torn: {_CURE}"
        )
    offset = found.id.get_offset()
    if offset is not None and creation.get_layout() == h5py.h5d.CONTIGUOUS:
        if offset + needed > size:
            raise Mt2stError(f"{path}: the data set {name!r} ends beyond the file; it is torn: {_CURE}")
        return "", dtype.str, int(offset), list(shape)
    available = int(psutil.virtual_memory().available)
    if needed > available // 4:
        raise Mt2stError(
            f"{path}: the data set {name!r} is compressed or in chunks and takes {needed / 1e9:,.1f} GB of memory, but "
            f"{available / 1e9:,.1f} GB are available; write it again without compression"
        )
    copy = folder / f"{name}.bin"
    copy.write_bytes(np.ascontiguousarray(found[()]).tobytes())
    return str(copy), dtype.str, 0, list(shape)


def main(argv: list[str]) -> int:
    """Print the layout of a file as JSON, or {"error": one line}."""
    path, folder, seconds = argv
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    try:
        print(json.dumps(layout(Path(path), Path(folder))))
    except Mt2stError as error:
        print(json.dumps({"error": str(error)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
