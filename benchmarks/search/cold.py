"""A saved index in a new process: bytes on the disk, seconds to load, the first answer and the next ones.

The files are put out of the system's cache first, as far as it obeys (`posix_fadvise`), so that loading reads the disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt2st.errors import Mt2stError
from mt2st.index import VectorIndex, load_index, save_index

_NEXT_QUERIES = 20
_DATA = "measured"  # the hash that the copy is saved and loaded by; it lives for a moment


def cold(index: VectorIndex, queries: NDArray[Any], k: int, scratch: Path) -> dict[str, float]:
    """`disk_bytes`, `load_seconds`, `first_query_seconds`, `warm_query_seconds` of this index, saved below `scratch`.

    Raises:
        Mt2stError: it cannot be saved, or the process that loads it failed.
    """
    with TemporaryDirectory(prefix=".cold-", dir=scratch) as place:
        folder = Path(place)
        save_index(index, folder / "index", _DATA)
        files = [file for file in folder.iterdir() if file.is_file()]
        disk_bytes = sum(file.stat().st_size for file in files)
        np.save(folder / "queries.npy", np.asarray(queries[: _NEXT_QUERIES + 1]))
        for file in files:
            forget(file)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.search.cold", str(folder), str(k)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise Mt2stError(f"a new process could not load the {index.backend} index: {done.stderr.strip()[-300:]}")
    return {"disk_bytes": float(disk_bytes), **json.loads(done.stdout.splitlines()[-1])}


def forget(file: Path) -> None:
    """Ask the system to drop the file from its cache; its pages must be on the disk, which saving made sure of."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def main(argv: list[str]) -> int:
    """Load the index of a folder, ask, print what it took as JSON."""
    folder, k = Path(argv[0]), int(argv[1])
    queries = np.load(folder / "queries.npy")
    started = time.perf_counter()
    index = load_index(folder / "index", _DATA)
    taken = [time.perf_counter() - started]
    for row in range(len(queries)):
        started = time.perf_counter()
        index.search(queries[row : row + 1], k)
        taken.append(time.perf_counter() - started)
    warm = float(np.median(taken[2:])) if len(taken) > 2 else taken[1]
    print(json.dumps({"load_seconds": taken[0], "first_query_seconds": taken[1], "warm_query_seconds": warm}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
