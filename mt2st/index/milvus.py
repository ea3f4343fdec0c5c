"""Milvus (extra `milvus`): embedded in a folder, or a server or cluster by its address. The same code for both.

    create_index("milvus:HNSW?ef_search=64")                                  # embedded, in a folder that goes away
    create_index("milvus:HNSW?uri=vectors.db&collection=pets")                # embedded, kept
    create_index("milvus:HNSW?uri=http://host:19530&collection=pets")         # a server; its token from MILVUS_TOKEN

What is known to go wrong, and what is done about it:

- milvus-lite up to 3.2.0 ignored search parameters, so it is refused.
- An index declared with the collection searches exactly for seconds after a flush, while it says that it is finished.
  So items are inserted, flushed, and the collection is renamed, which waits for what runs in the background. Then the
  index is made and loaded.
- A flush after each insert makes many small segments (milvus-io/milvus#40364), so there is one, at the end.
- Milvus's usual consistency, Bounded, may leave out what was just inserted; here it is Strong.
- One process opens a folder; a second is told so.
- A collection has the suffix `_unfinished` until all items are in it and counted.
- Embedded Milvus looks at every item in Python for each call, whatever the index, so many queries a call are far faster
  than one.
- pymilvus 3 flattens the parameters of an index, and milvus-lite 3.2.2 reads nested ones alone, so `nlist`, `M` and
  `efConstruction` would be ignored without a word. Here they are sent both ways.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from mt2st.errors import Mt2stError, unknown_name
from mt2st.index._base import Flags, Floats, Ints, VectorIndex, check_knobs
from mt2st.index._milvus import (
    EMBEDDED_KINDS,
    SERVER_KINDS,
    TOKEN_VARIABLE,
    UNFINISHED,
    check_installed,
    check_uri,
    discard,
    extract,
    filter_text,
    in_our_words,
    is_server,
    release,
)

_METRICS = {"cosine": "IP", "dot": "IP", "euclidean": "L2"}  # rows are of unit length where the metric is the cosine
_BYTES_A_CALL = 16 << 20  # a server takes 64 MiB
_QUERIES_A_CALL = 1024  # of 16,384 that a server takes
_LARGEST_K = 16_384
_FIELD, _KEY = "embedding", "id"

Result = TypeVar("Result")


class Index(VectorIndex):
    """A collection of Milvus.

    Args:
        factory: the index type: FLAT, IVF_FLAT, HNSW, IVF_SQ8, HNSW_SQ; on a server also IVF_PQ, SCANN, DISKANN, ….
        uri: "" = embedded, in a folder that goes away with the index; a path that ends in .db; or http://host:port.
        collection: its name; "" = a new one.
        lists: inverted lists (IVF types).
        nprobe: inverted lists looked at (IVF types).
        links: links an item (HNSW types).
        ef_construction: candidates kept while building (HNSW types).
        ef_search: candidates kept while searching (HNSW types); raised to k where k is larger.
        timeout_seconds: that a call may take before it is given up.
        consistency: "Strong" sees every insert; "Bounded", "Session" and "Eventually" are quicker on a cluster.
        metric: "cosine", "dot" or "euclidean".
    """

    backend = "milvus"
    example = ":HNSW?ef_search=64"
    requires = "pymilvus"
    removes = True
    search_knobs: ClassVar[Mapping[str, int]] = {"nprobe": 65_536, "ef_search": 32_768}

    def __init__(
        self,
        factory: str = "HNSW",
        uri: str = "",
        collection: str = "",
        lists: int = 128,
        nprobe: int = 8,
        links: int = 16,
        ef_construction: int = 200,
        ef_search: int = 64,
        timeout_seconds: int = 600,
        consistency: str = "Strong",
        metric: str = "cosine",
    ) -> None:
        super().__init__(metric)
        check_knobs(self.backend, {"lists": lists, "nprobe": nprobe}, high=65_536)
        check_knobs(self.backend, {"links": links}, low=2, high=2048)
        check_knobs(self.backend, {"ef_construction": ef_construction, "ef_search": ef_search}, high=32_768)
        check_knobs(self.backend, {"timeout_seconds": timeout_seconds}, high=86_400)
        kinds = SERVER_KINDS if is_server(uri) else EMBEDDED_KINDS
        if factory not in kinds:
            raise unknown_name("index type of " + ("Milvus" if is_server(uri) else "embedded Milvus"), factory, kinds)
        levels = ("Strong", "Bounded", "Session", "Eventually")
        if consistency not in levels:
            raise unknown_name("consistency of Milvus", consistency, levels)
        if collection and not collection.isidentifier():
            raise Mt2stError(f"index 'milvus': collection = {collection!r}; give letters, digits and underscores")
        check_uri(uri)
        check_installed(embedded=not is_server(uri))
        self.factory, self.uri, self.collection = factory, uri, collection
        self.lists, self.nprobe, self.links = lists, nprobe, links
        self.ef_construction, self.ef_search = ef_construction, ef_search
        self.timeout_seconds, self.consistency = timeout_seconds, consistency
        self._name = collection or f"mt2st_{secrets.token_hex(8)}"
        self._client: Any = None
        self._database = ""  # path of the embedded database
        self._ready = False

    @classmethod
    def sweep(cls, num_items: int, width: int, along: str = "effort") -> list[str]:
        """The three types that the embedded one and a server share."""
        if along != "effort":
            return []
        lists = 1 << max(0, round(float(np.log2(max(1.0, num_items**0.5)))))
        probes = ",".join(str(value) for value in (1, 4, 16, 64) if value <= lists)
        return [":FLAT", f":IVF_FLAT?lists={lists}&nprobe={probes}", ":HNSW?ef_search=16,64,256"]

    @property
    def index_bytes(self) -> int:
        """Embedded: its folder's files, vectors, index and log. On a server: the float32 vectors and their ids."""
        if not self.ids_given or self.width is None:
            return 0
        if not self._database:
            return self.ids_given * (4 * self.width + 8)
        return sum(file.stat().st_size for file in Path(self._database).rglob("*") if file.is_file())

    # -- building ------------------------------------------------------------------------------------------------------

    def _add(self, rows: Floats) -> None:
        if self._client is None:
            self._connect()
        if not self._ready:
            self._create(rows.shape[1])
            self._insert(self._name + UNFINISHED, rows)
            self._flush(self._name + UNFINISHED)
            told = self._ask("count", lambda: self._client.get_collection_stats(self._name + UNFINISHED))
            self._check_count(int(told.get("row_count", -1)), len(rows))
            self._ask("rename the collection", lambda: self._client.rename_collection(
                self._name + UNFINISHED, self._name, timeout=self.timeout_seconds
            ))  # fmt: skip
            self._make_index()
        else:
            self._ask("release the collection", lambda: self._client.release_collection(self._name))
            self._insert(self._name, rows)
            self._flush(self._name)
        self._ask("load the collection", lambda: self._client.load_collection(self._name, timeout=self.timeout_seconds))
        self._check_count(self._counted(), len(self) + len(rows))
        self._ready = True

    def _create(self, width: int) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_KEY, DataType.INT64, is_primary=True)
        schema.add_field(_FIELD, DataType.FLOAT_VECTOR, dim=width)
        unfinished = self._name + UNFINISHED
        if self._ask("look for the collection", lambda: self._client.has_collection(self._name)):
            raise Mt2stError(
                f"index 'milvus': {self._where()} has a collection {self._name!r} already; give another name, or "
                "drop it"
            )
        if self._ask("look for the collection", lambda: self._client.has_collection(unfinished)):
            self._ask("drop what was never finished", lambda: self._client.drop_collection(unfinished))
        self._ask(
            "create the collection",
            lambda: self._client.create_collection(
                unfinished, schema=schema, consistency_level=self.consistency, timeout=self.timeout_seconds
            ),
        )

    def _insert(self, name: str, rows: Floats) -> None:
        """Insert rows under the next ids, as many a call as Milvus takes; flushed by the caller, once."""
        each = max(1, _BYTES_A_CALL // (4 * rows.shape[1] + 16))
        for start in range(0, len(rows), each):
            part = rows[start : start + each]
            first = self.ids_given + start
            content = [{_KEY: first + place, _FIELD: row} for place, row in enumerate(part)]
            # Over a network a call may be sent twice, and an upsert then changes nothing; embedded it would cost more.
            put, count = (
                (self._client.insert, "insert_count") if self._database else (self._client.upsert, "upsert_count")
            )
            told = self._ask(
                f"insert items from {first}",
                partial(put, name, content, timeout=self.timeout_seconds),
            )
            if told.get(count) != len(part):
                raise Mt2stError(
                    f"index 'milvus': {self._where()} took {told.get(count)} of {len(part)} items; the collection is "
                    "not whole: build it again"
                )

    def _flush(self, name: str) -> None:
        self._ask("flush the collection", lambda: self._client.flush(name, timeout=self.timeout_seconds))

    def _make_index(self) -> None:
        if self.factory in ("HNSW", "HNSW_SQ"):
            build = {"M": self.links, "efConstruction": self.ef_construction}
        else:
            build = {"nlist": self.lists} if self.factory.startswith(("IVF", "GPU_IVF", "SCANN")) else {}
        both = {"params": build, **build}  # nested for milvus-lite, flat as pymilvus 3 sends it; a server takes either
        parameters = self._client.prepare_index_params()
        parameters.add_index(_FIELD, index_type=self.factory, metric_type=_METRICS[self.metric], params=both)
        self._ask(
            f"build {self.factory}",
            lambda: self._client.create_index(self._name, parameters, timeout=self.timeout_seconds),
        )

    def _counted(self) -> int:
        """Items in the loaded collection, without deleted ones."""
        rows = self._ask(
            "count the items",
            lambda: self._client.query(self._name, filter="", output_fields=["count(*)"], consistency_level="Strong"),
        )
        return int(rows[0]["count(*)"])

    def _check_count(self, found: int, expected: int) -> None:
        if found != expected:
            raise Mt2stError(
                f"index 'milvus': {self._where()} holds {found} items in {self._name!r}, not {expected}; it is not "
                "whole: build it again"
            )

    def _remove(self, ids: Ints) -> None:
        for start in range(0, len(ids), 10_000):
            some = ids[start : start + 10_000].tolist()
            self._ask("delete items", partial(self._client.delete, self._name, ids=some, timeout=self.timeout_seconds))

    # -- searching -----------------------------------------------------------------------------------------------------

    def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        if k > _LARGEST_K:
            raise Mt2stError(f"index 'milvus': k = {k} is above Milvus's limit of {_LARGEST_K}; use exact or faiss_cpu")
        knobs: dict[str, Any] = {"params": {"nprobe": min(self.nprobe, self.lists), "ef": max(self.ef_search, k)}}
        extra: dict[str, Any] = {}
        if allowed is not None:
            extra["filter"] = filter_text(allowed)
        scores, ids = np.full((len(rows), k), -np.inf, np.float32), np.full((len(rows), k), -1, np.int64)
        for start in range(0, len(rows), _QUERIES_A_CALL):
            part = rows[start : start + _QUERIES_A_CALL]
            ask = partial(
                self._client.search,
                self._name,
                data=list(part),
                anns_field=_FIELD,
                limit=k,
                output_fields=[_KEY],
                search_params=knobs,
                consistency_level=self.consistency,
                timeout=self.timeout_seconds,
                **extra,
            )
            for place, hits in enumerate(self._ask("search", ask), start):
                count = len(hits)
                ids[place, :count] = [hit[_KEY] for hit in hits]
                scores[place, :count] = [hit["distance"] for hit in hits]
        if self.metric == "euclidean":
            scores = -np.sqrt(np.maximum(scores, 0))  # what is missing is made −∞ by the caller
        return scores, ids

    # -- files ---------------------------------------------------------------------------------------------------------

    def write(self, path: Path) -> None:
        """Where the collection is; of an embedded one in a folder that goes away, the folder itself, as a zip file."""
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("collection.json", json.dumps({"collection": self._name, "uri": self.uri}))
            if self.uri:
                return
            self._close()
            folder = Path(self._database)
            for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "LOCK"):
                archive.write(file, f"database/{file.relative_to(folder)}")
        self._connect()
        self._load()

    def read(self, path: Path) -> None:
        """Open the collection that `write` noted, and count its items."""
        try:
            with zipfile.ZipFile(path) as archive:
                self._name = str(json.loads(archive.read("collection.json"))["collection"])
                if not self.uri:
                    self._database = self._new_folder()
                    for member in archive.infolist():
                        extract(archive, member, Path(self._database))
        except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError) as error:
            raise Mt2stError(f"{path} is no saved Milvus index ({error}); build the index again") from None
        if not self._name.isidentifier():
            raise Mt2stError(f"{path} names the collection {self._name[:80]!r}, which none has; build the index again")
        self._connect()
        if not self._ask("look for the collection", lambda: self._client.has_collection(self._name)):
            raise Mt2stError(
                f"index 'milvus': {self._where()} has no whole collection {self._name!r}; build the index again"
            )
        if not self._ask("look for its index", lambda: self._client.list_indexes(self._name)):
            self._make_index()  # a crash came between the items and the index
        self._load()

    def _load(self) -> None:
        self._ask("load the collection", lambda: self._client.load_collection(self._name, timeout=self.timeout_seconds))
        self._check_count(self._counted(), len(self))
        self._ready = True

    # -- the connection ------------------------------------------------------------------------------------------------

    def _new_folder(self) -> str:
        folder = tempfile.mkdtemp(prefix="mt2st-milvus-")
        weakref.finalize(self, discard, folder)
        return f"{folder}/vectors.db"

    def _connect(self) -> None:
        from pymilvus import MilvusClient

        logging.getLogger("milvus_lite").addHandler(logging.NullHandler())  # its errors come back as ours
        if not is_server(self.uri) and not self._database:
            self._database = str(Path(self.uri).resolve()) if self.uri else self._new_folder()
        if self._database:
            Path(self._database).parent.mkdir(parents=True, exist_ok=True)
        token = os.environ.get(TOKEN_VARIABLE, "")
        self._client = self._ask(
            "connect",
            lambda: MilvusClient(uri=self._database or self.uri, token=token, timeout=min(self.timeout_seconds, 10)),
        )

    def _close(self) -> None:
        """Let go of the connection, and of the folder where embedded."""
        self._client.close()
        self._client = None
        if self._database:
            release(self._database)

    def _where(self) -> str:
        return self.uri or "the embedded Milvus"

    def _ask(self, what: str, call: Callable[[], Result]) -> Result:
        """The answer to a call, or its error in one line; pymilvus itself tries again until the time is up."""
        with in_our_words(what, self._where()):
            return call()
