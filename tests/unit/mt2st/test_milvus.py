"""Milvus as a backend: each known trap, an address that answers nothing, and folders that are not whole.

What every index promises is in tests/contract/test_indexes.py, which sweeps this backend too. Needs the extra `milvus`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mt2st.errors import Mt2stError
from mt2st.index import _milvus as parts
from mt2st.index import create_index, load_index, save_index
from mt2st.index import milvus as backend

WIDTH = 8


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3000, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((60, WIDTH)).astype(np.float32)


@pytest.fixture
def installed() -> None:
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(ours) & set(theirs)) / len(theirs) for ours, theirs in zip(found, truth)]))


# -- without the packages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("milvus:HNWS", "did you mean 'HNSW'"),
        ("milvus:DISKANN", "unknown index type of embedded Milvus"),
        ("milvus?uri=vectors", r"give a path that ends in .db, or http://host:port"),
        ("milvus?uri=http://me:secret@host:19530", "give the token in the variable MILVUS_TOKEN"),
        ("milvus?token=secret", "unknown parameter"),
        ("milvus?consistency=strong", "did you mean 'Strong'"),
        ("milvus?collection=a-b", "letters, digits and underscores"),
        ("milvus?ef_search=0", "ef_search = 0"),
        ("milvus?timeout_seconds=0", "timeout_seconds = 0"),
    ],
)
def test_bad_specs_are_one_line(spec: str, words: str) -> None:
    with pytest.raises(Mt2stError, match=words) as caught:
        create_index(spec)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value), "what is secret is repeated nowhere"


def test_versions_that_cannot_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: dict[str, str] = {}
    monkeypatch.setattr(parts, "find_spec", lambda name: name)
    monkeypatch.setattr(parts, "_installed", lambda package: versions.get(package, ""))
    with pytest.raises(Mt2stError, match=r"needs the package milvus-lite.*mt2st\[milvus\]"):
        create_index("milvus")
    for old in ("2.5.1", "3.2.0", "3.2.1"):
        versions["milvus-lite"] = old
        with pytest.raises(Mt2stError, match=rf"milvus-lite {old} ignores search parameters.*3\.2\.2"):
            create_index("milvus")
    for new in ("3.2.2", "3.10.0", "4.0"):
        versions["milvus-lite"] = new
        create_index("milvus")
    versions["faiss-gpu"] = "1.14.3"
    with pytest.raises(Mt2stError, match=r"breaks the faiss-gpu that is installed.*exclude each other"):
        create_index("milvus")
    create_index("milvus?uri=http://host:19530")  # a server needs no FAISS here
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    with pytest.raises(Mt2stError, match=r"pip install 'mt2st\[milvus\]'"):
        create_index("milvus?uri=http://host:19530")


def test_a_filter_names_the_fewer_ids() -> None:
    flags = np.zeros(10, np.bool_)
    flags[[2, 5]] = True
    assert parts.filter_text(flags) == "id in [2,5]"
    assert parts.filter_text(~flags) == "id not in [2,5]"


# -- the embedded one --------------------------------------------------------------------------------------------------


def test_recall_and_effort_follow_ef_and_nprobe(installed: None, gallery: np.ndarray, queries: np.ndarray) -> None:
    """Ignored parameters, and an index that is not used, both show as a recall that does not move."""
    exact = create_index("exact")
    exact.add(gallery)
    truth = exact.search(queries, 10)[1]
    for spec, knob, low, high in (
        ("milvus:HNSW?links=4&ef_construction=20", "ef_search", 10, 1000),
        ("milvus:IVF_FLAT?lists=64", "nprobe", 1, 64),
    ):
        index = create_index(spec)
        index.add(gallery)
        found = []
        for value in (low, high):
            index.set_search_knobs(**{knob: value})
            found.append(recall(index.search(queries, 10)[1], truth))
        assert found[1] > 0.9, spec
        assert found[1] > found[0] + 0.05, spec


def test_building_follows_its_parameters(installed: None, gallery: np.ndarray, queries: np.ndarray) -> None:
    """8 of 512 lists find less than 8 of 64, and a thin graph less than a thick one."""
    exact = create_index("exact")
    exact.add(gallery)
    truth = exact.search(queries, 10)[1]
    found = {}
    for spec in (
        "milvus:IVF_FLAT?lists=64&nprobe=8",
        "milvus:IVF_FLAT?lists=512&nprobe=8",
        "milvus:HNSW?links=2&ef_construction=4&ef_search=16",
        "milvus:HNSW?links=32&ef_construction=200&ef_search=16",
    ):
        index = create_index(spec)
        index.add(gallery)
        found[spec] = recall(index.search(queries, 10)[1], truth)
    few, many, thin, thick = found.values()
    assert few > many + 0.1, found
    assert thick > thin + 0.1, found


def test_every_call_asks_for_strong_consistency(
    installed: None, gallery: np.ndarray, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymilvus import MilvusClient

    levels = []
    search = MilvusClient.search

    def watched(self: MilvusClient, *arguments: object, **named: object) -> object:
        levels.append(named["consistency_level"])
        return search(self, *arguments, **named)

    monkeypatch.setattr(MilvusClient, "search", watched)
    index = create_index("milvus:FLAT")
    index.add(gallery[:50])
    index.search(queries[:1], 3)
    assert levels == ["Strong"]


def test_the_index_comes_after_the_flush_and_before_the_load(
    installed: None, gallery: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymilvus import MilvusClient

    calls: list[str] = []
    for name in ("create_collection", "insert", "flush", "rename_collection", "create_index", "load_collection"):
        inner = getattr(MilvusClient, name)

        def watched(self: object, *arguments: object, inner=inner, name=name, **named: object) -> object:
            calls.append(name)
            if name == "create_collection":
                assert "index_params" not in named
            return inner(self, *arguments, **named)

        monkeypatch.setattr(MilvusClient, name, watched)
    monkeypatch.setattr(backend, "_BYTES_A_CALL", 48 * 20)  # 20 items a call
    index = create_index("milvus:FLAT")
    index.add(gallery[:50])
    order = ["create_collection", "insert", "insert", "insert", "flush", "rename_collection", "create_index"]
    assert calls == [*order, "load_collection"], "one flush for all inserts"


def test_a_folder_serves_one_process(installed: None, gallery: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "vectors.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        index = create_index("milvus:FLAT", uri=str(path))
        with pytest.raises(Mt2stError, match="one process a folder") as caught:
            index.add(gallery[:10])
        assert "\n" not in str(caught.value)
    finally:
        holder.communicate("\n")
    index = create_index("milvus:FLAT", uri=str(path), collection="pets")
    index.add(gallery[:10])
    with pytest.raises(Mt2stError, match="has a collection 'pets' already"):
        create_index("milvus:FLAT", uri=str(path), collection="pets").add(gallery[:10])


HOLD = """
import sys
from milvus_lite.db import MilvusLite
database = MilvusLite(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


def test_what_is_half_inserted_is_not_taken_for_whole(
    installed: None, gallery: np.ndarray, queries: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "vectors.db")
    monkeypatch.setattr(backend, "_BYTES_A_CALL", 48 * 20)
    broken = create_index("milvus:FLAT", uri=path, collection="pets")
    insert, calls = broken._ask, []

    def ask(what: str, call: object) -> object:
        calls.append(what)
        if what == "insert items from 20":
            raise Mt2stError("the line was cut")
        return insert(what, call)  # type: ignore[arg-type]

    monkeypatch.setattr(broken, "_ask", ask)
    with pytest.raises(Mt2stError, match="the line was cut"):
        broken.add(gallery[:50])
    broken._close()
    whole = create_index("milvus:FLAT", uri=path, collection="pets")  # drops the rest and begins anew
    whole.add(gallery[:50])
    save_index(whole, tmp_path / "pets", "data")
    np.testing.assert_array_equal(whole.search(gallery[:50], 1)[1][:, 0], np.arange(50))
    whole._client.delete("pets", ids=[7])  # by somebody else
    whole._close()
    with pytest.raises(Mt2stError, match="holds 49 items in 'pets', not 50; it is not whole"):
        load_index(tmp_path / "pets", "data")


def test_a_kept_collection_is_found_again(
    installed: None, gallery: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    index = create_index("milvus:HNSW", uri=str(tmp_path / "vectors.db"), collection="pets")
    index.add(gallery)
    expected = index.search(queries, 5)
    save_index(index, tmp_path / "pets", "data")
    index._close()
    loaded = load_index(tmp_path / "pets", "data")
    for ours, theirs in zip(expected, loaded.search(queries, 5)):
        np.testing.assert_array_equal(ours, theirs)
    loaded._client.drop_collection("pets")
    loaded._close()
    with pytest.raises(Mt2stError, match="has no whole collection 'pets'; build the index again"):
        load_index(tmp_path / "pets", "data")


# -- a server ----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and answers nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield int(listener.getsockname()[1])


def test_a_server_that_is_away_or_silent_is_one_line(installed: None, gallery: np.ndarray, silent: int) -> None:
    for port in (free_port(), silent):
        index = create_index(f"milvus:FLAT?uri=http://127.0.0.1:{port}&timeout_seconds=1")
        started = time.monotonic()
        with pytest.raises(Mt2stError, match=rf"Milvus at http://127.0.0.1:{port} failed to connect") as caught:
            index.add(gallery[:5])
        assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 60, "retries are bounded"
        assert len(index) == 0


def test_a_server_in_a_process_of_its_own(
    installed: None, gallery: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(tmp_path / "db"), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(port)
        index = create_index(f"milvus:FLAT?uri=http://127.0.0.1:{port}&timeout_seconds=20")
        index.add(gallery[:200])
        exact = create_index("exact")
        exact.add(gallery[:200])
        np.testing.assert_array_equal(index.search(queries, 3)[1], exact.search(queries, 3)[1])
        assert index.index_bytes == 200 * (4 * WIDTH + 8)
        server.kill()
        server.wait()
        index.timeout_seconds = 1
        with pytest.raises(Mt2stError, match="failed to search") as caught:
            index.search(queries, 3)
        assert "\n" not in str(caught.value)
    finally:
        server.kill()
        server.wait()


def _await(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at port {port}")
