"""Damaged files of the field, each read or refused in one line: `field_files.py KIND INPUTS SEED` prints what came out.

Each input is read in a forked process with a limit on its time, as the reader of HDF5 itself has; so a crash or an
endless loop of the HDF5 library is counted, as `stopped`, and is what `read_hdf5` says in one line. For the other
formats neither may happen. Imports no torch, so that forking is safe.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.search.formats import checked_neighbors, read_bin, read_ground_truth, write_bin, write_ground_truth
from mt2st.errors import Mt2stError
from mt2st.vectors import read_vectors

READ, REFUSED, BROKEN = 0, 1, 2
CPU_SECONDS = 2
Change = Callable[[random.Random, bytes], bytes]


def read_npy(path: Path) -> None:
    read_vectors(path)[""].sum(dtype=np.float64)


def read_vectors_of_bin(path: Path) -> None:
    read_bin(path).sum(dtype=np.float64)


def read_truth(path: Path) -> None:
    ids, distances = read_ground_truth(path)
    distances.sum()
    checked_neighbors(str(path), ids, 5, 30)


def read_hdf5_here(path: Path) -> None:
    from benchmarks.search.hdf5 import layout, mapped

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        data = mapped(path, layout(path, Path(folder)))
        data.gallery.sum(dtype=np.float64)
        assert data.queries is not None
        if data.neighbors is not None:
            checked_neighbors(str(path), data.neighbors, len(data.queries), len(data.gallery))


def written(kind: str, folder: Path) -> tuple[Path, Callable[[Path], None]]:
    """A sound file of this kind, and who reads it."""
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    ids, distances = rng.permuted(np.tile(np.arange(30), (5, 1)), axis=1)[:, :7], np.sort(rng.random((5, 7)), axis=1)
    if kind == "npy":
        np.save(folder / "x.npy", vectors)
        return folder / "x.npy", read_npy
    if kind == "truth":
        write_ground_truth(folder / "x.truth", ids, distances)
        return folder / "x.truth", read_truth
    if kind.startswith("hdf5"):
        from benchmarks.search.hdf5 import write_hdf5

        path = folder / "x.hdf5"
        write_hdf5(path, vectors, queries, ids, distances, "euclidean", compressed=kind == "hdf5-gzip")
        return path, read_hdf5_here
    path = folder / f"x.{kind}"
    write_bin(path, vectors if kind == "fbin" else np.round(vectors * 20) + (128 if kind == "u8bin" else 0))
    return path, read_vectors_of_bin


def outcome(path: Path, read: Callable[[Path], None]) -> str:
    """What reading the file in a process of its own comes to."""
    child = os.fork()
    if not child:
        code = BROKEN
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            read(path)
            code = READ
        except Mt2stError as error:
            code = REFUSED if "\n" not in str(error) else BROKEN
        except BaseException as error:  # noqa: BLE001  # told below, then counted as broken
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {READ: "read", REFUSED: "refused", BROKEN: "broken"}.get(code, "stopped")


def fuzz(kind: str, inputs: int, seed: int, change: Change) -> Counter[str]:
    """How many damaged files were read, refused, stopped and broken."""
    outcomes: Counter[str] = Counter()
    chance = random.Random(f"{seed}:{kind}")
    with tempfile.TemporaryDirectory() as place:
        path, read = written(kind, Path(place))
        good = path.read_bytes()
        assert outcome(path, read) == "read"
        for _ in range(inputs):
            path.write_bytes(change(chance, good))
            outcomes[outcome(path, read)] += 1
    return outcomes


def changed(chance: random.Random, content: bytes) -> bytes:
    """One to three places flipped, replaced, cut out or filled; often near the front, where headers lie."""
    broken = bytearray(content)
    for _ in range(chance.choice((1, 1, 3))):
        at = chance.randrange(min(len(broken), chance.choice((16, 200, len(broken) or 1))) or 1)
        kind = chance.randrange(5)
        if kind == 0 and broken:
            broken[min(at, len(broken) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            broken[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 2:
            del broken[at : at + chance.choice((1, 8, 200))]
        elif kind == 3:
            broken[at : at + 8] = chance.choice((b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f" * 2, b"\0\0\0\x80" * 2))
        else:
            broken[at:at] = chance.choice((b"\0" * 8, b"\xff" * 8, b"[" * 50, b"9" * 50, b"\n"))
    return bytes(broken)


if __name__ == "__main__":
    print(json.dumps(fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), changed)))
