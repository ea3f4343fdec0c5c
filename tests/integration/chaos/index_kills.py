"""Kill whoever builds an index, or its database, at a random moment: the index is whole, or named as not whole.

    python tests/integration/chaos/index_kills.py --target milvus --kills 10
    python tests/integration/chaos/index_kills.py --target database --kills 10
    python tests/integration/chaos/index_kills.py --target faiss --kills 10

`milvus` and `faiss`: the process that inserts, builds and saves is killed (embedded Milvus lives in it). `database`: a
Milvus server is killed under a client. After each kill the index is loaded. It answers as exact search does, or the
refusal is one line; then it is built again, which must work. Prints one JSON object; exit code 1 if anything was taken
for whole that is not.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from mt2st.errors import Mt2stError
from mt2st.index import VectorIndex, create_index, load_index, save_index

ITEMS, WIDTH, HASH = 4_000, 16, "killed"
SPECS = {"milvus": "milvus:FLAT?collection=pets", "faiss": "faiss_cpu:IVF64,Flat?nprobe=64"}


def vectors(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def spec_of(target: str, folder: Path, port: int = 0) -> str:
    if target == "database":
        return f"{SPECS['milvus']}&uri=http://127.0.0.1:{port}&timeout_seconds=5"
    return SPECS[target] + (f"&uri={folder / 'vectors.db'}" if target == "milvus" else "")


def build(spec: str, folder: Path) -> None:
    """Insert in many calls, build, save; says when it begins, so that the moment of the kill is within."""
    if spec.startswith("milvus"):
        from mt2st.index import milvus

        milvus._BYTES_A_CALL = 20_000
    index = create_index(spec)
    print("begun", flush=True)
    index.add(vectors(0, ITEMS))
    save_index(index, folder / "index", HASH)
    print("saved", flush=True)


def close(index: VectorIndex) -> None:
    if index.backend == "milvus":
        index._close()  # type: ignore[attr-defined]  # one process a folder


def verdict(folder: Path) -> str:
    """What is there after a kill: "whole" or "named"; anything else is an AssertionError."""
    queries, exact = vectors(1, 50), create_index("exact")
    exact.add(vectors(0, ITEMS))
    try:
        index = load_index(folder / "index", HASH)
        ids = index.search(queries, 5)[1]
    except Mt2stError as error:
        assert "\n" not in str(error), str(error)  # noqa: PT017
        return "named"
    assert (ids == exact.search(queries, 5)[1]).all(), "taken for whole, and is not"
    close(index)
    return "whole"


def rebuilt(spec: str, folder: Path) -> None:
    """Build again over what is left, as a user would: the collection that is there is dropped first."""
    if spec.startswith("milvus"):
        old = create_index(spec)
        old._connect()  # type: ignore[attr-defined]
        if old._client.has_collection("pets"):  # type: ignore[attr-defined]
            old._client.drop_collection("pets")  # type: ignore[attr-defined]
        close(old)
    index = create_index(spec)
    index.add(vectors(0, ITEMS))
    save_index(index, folder / "index", HASH)
    close(index)
    assert verdict(folder) == "whole"


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A Milvus server in a process of its own."""
    server = subprocess.Popen(
        [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "db"), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(1200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server never answered")


def one_kill(target: str, folder: Path, chance: random.Random, most_seconds: float) -> str:
    """Build, kill, look, build again; what was there in between."""
    port = 0
    server = None
    if target == "database":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        server = serve(folder, port)
    spec = spec_of(target, folder, port)
    builder = subprocess.Popen(
        [sys.executable, __file__, "--build", spec, "--folder", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert builder.stdout is not None
    try:
        assert builder.stdout.readline() == "begun\n"
        time.sleep(chance.uniform(0, most_seconds))
        (server or builder).kill()
        (server or builder).wait()
        said = builder.communicate()[0]
        if server is not None:
            server = serve(folder, port)
        found = verdict(folder)
        assert not (target != "database" and "saved" in said and found != "whole"), "saved, and yet not there"
        rebuilt(spec, folder)
    finally:
        for process in (builder, server):
            if process is not None:
                process.kill()
                process.wait()
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", choices=["milvus", "database", "faiss"], default="milvus")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-seconds", type=float, default=3.0, help="after the beginning, until the kill")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build, options.folder)
        return 0
    chance, found, bad = random.Random(options.seed), Counter[str](), []
    for number in range(options.kills):
        with tempfile.TemporaryDirectory(prefix="index-kills-") as place:
            try:
                found[one_kill(options.target, Path(place), chance, options.most_seconds)] += 1
            except (AssertionError, Mt2stError) as error:
                bad.append(f"kill {number}: {error}")
    print(json.dumps({"target": options.target, "kills": options.kills, "found": found, "bad": bad}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
