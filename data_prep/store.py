"""Writing a prepared folder: into a hidden partial folder first, published with one rename, resumable after a kill.

The partial folder holds, beside the files of `mt2st.data.splits`, a journal with one fixed-size record for each image
in the order of first appearance. After a kill the texts are read again (cheap), while images that the journal vouches
for, hash and all, are not decoded again. Adapters yield the same examples in the same order, so the first image that
differs from the journal ends its use.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mt2st.data.card import DatasetCard, Example
from mt2st.data.manifest import FORMAT_VERSION, IMAGES_BIN, MANIFEST, TABLES, schemas
from mt2st.errors import Mt2stError
from mt2st.files import PARTIAL_SUFFIX, canonical_json, file_hash, sync_file, sync_folder, write_sealed_json

# Key of the image, hash of its pixels, hash of its stored bytes, number of stored bytes (0: it could not be decoded).
_RECORD = struct.Struct("<32s32s32sQ")
_JOURNAL = "journal.bin"
_FAILURES = "failures.jsonl"
_SCRATCH = "index.sqlite"
_ROWS_A_BATCH = 4096
_NO_SHA = bytes(32)


def partial_folder(result: Path) -> Path:
    """Where `result` is built before it is published."""
    return result.parent / f".{result.name}{PARTIAL_SUFFIX}"


@dataclass(frozen=True)
class StoredImage:
    """What decoding an image gave: bytes to store (None: lies there already, `reused`) and the hash of its S × S
    pixels.

    `error` is set, and the rest empty, for an image that could not be decoded.
    """

    stored: bytes | None = None
    pixel_sha: bytes = _NO_SHA
    stored_sha: bytes = _NO_SHA
    length: int = 0
    error: str = ""
    missing: bool = False
    reused: bool = False


class _Table:
    """An Arrow file written in batches, with a running hash of its rows that does not depend on Arrow's version."""

    def __init__(self, path: Path, schema: Any) -> None:
        import pyarrow as pa

        self._schema = schema
        self._names = schema.names
        self._writer = pa.ipc.new_file(str(path), schema)
        self._rows: list[dict[str, Any]] = []
        self.count = 0
        self.digest = hashlib.sha256()

    def append(self, row: dict[str, Any], content: Any) -> None:
        self._rows.append(row)
        self.count += 1
        self.digest.update(canonical_json(content).encode() + b"\n")
        if len(self._rows) >= _ROWS_A_BATCH:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            columns = {name: [row[name] for row in self._rows] for name in self._names}
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self.flush()
        self._writer.close()


class StoreWriter:
    """Writes images and examples in order.

    Memory does not grow with their number: what must be looked up lies in SQLite.
    """

    def __init__(self, result: Path) -> None:
        self.result = result
        self.folder = partial_folder(result)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._bin = _open_kept(self.folder / IMAGES_BIN)
        self._journal = _open_kept(self.folder / _JOURNAL)
        self._tables = {name: _Table(self.folder / f"{name}.arrow", schema) for name, schema in schemas().items()}
        (self.folder / _SCRATCH).unlink(missing_ok=True)
        self._index = sqlite3.connect(self.folder / _SCRATCH, isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16000", "temp_store=FILE"):
            self._index.execute(f"PRAGMA {pragma}")
        self._index.execute("CREATE TABLE images (key BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID")
        self._index.execute("CREATE TABLE questions (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._index.execute("BEGIN")
        self._offset = 0
        self._image_rows = 0
        self._journal_rows = 0
        self._reading = _Reader(self.folder) if self._journal.seek(0, 2) else None
        self._ranges: dict[str, dict[str, list[int]]] = {}
        self.reused_images = 0

    # -- images ------------------------------------------------------------------------------------------------------

    def known(self, key: bytes) -> int | None:
        """Row of an image met before; −1 if it could not be decoded; None if it is new."""
        found = self._index.execute("SELECT row FROM images WHERE key = ?", (key,)).fetchone()
        return None if found is None else int(found[0])

    def reusable(self, key: bytes) -> StoredImage | None:
        """What the journal of an interrupted preparation holds for the next image.

        Ask once for each new image, in order.
        """
        if self._reading is None:
            return None
        image = self._reading.next(key)
        if image is None:
            self._reading = None
        return image

    def add(self, split: str, key: bytes, example: Example, image: StoredImage | None) -> bool:
        """Store an example; `image` is what decoding gave if its image is new.

        Returns False if its image could not be decoded.

        Raises:
            Mt2stError: the question id was used before in this split. ValueError, TypeError: a value that cannot be
                stored.
        """
        row = self.known(key)
        if row is None and image is None:
            row = self.add_text_item(key, example)
        elif row is None and image is not None and image.error:
            self.add_failure(key, image)
            row = -1
        elif row is None and image is not None:
            row = self.add_image(key, image, example)
        if row is not None and row >= 0:
            self.add_texts(split, row, example)
            return True
        return False

    def add_image(self, key: bytes, image: StoredImage, example: Example) -> int:
        """Store the next image. Returns its row."""
        row = self._tables["images"].count
        if image.reused:
            self.reused_images += 1
        else:
            _write(self._bin, self._offset, image.stored or b"")
            self._write_record(key, image)
        self._journal_rows += 1
        self._append_image(row, example, image.pixel_sha, self._image_rows, image.length)
        self._offset += image.length
        self._image_rows += 1
        self._index.execute("INSERT INTO images VALUES (?, ?)", (key, row))
        return row

    def add_text_item(self, key: bytes, example: Example) -> int:
        """Store an item without image. Its content hash is that of its texts."""
        row = self._tables["images"].count
        texts = canonical_json([list(example.captions), example.question])
        self._append_image(row, example, hashlib.sha256(texts.encode()).digest(), -1, 0)
        self._index.execute("INSERT INTO images VALUES (?, ?)", (key, row))
        return row

    def add_failure(self, key: bytes, image: StoredImage) -> None:
        """Remember that an image could not be decoded."""
        if not image.reused:
            with (self.folder / _FAILURES).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key.hex(), "error": image.error}) + "\n")
            self._write_record(key, image)
        self._journal_rows += 1
        self._index.execute("INSERT INTO images VALUES (?, -1)", (key,))

    def _write_record(self, key: bytes, image: StoredImage) -> None:
        record = _RECORD.pack(key, image.pixel_sha, image.stored_sha, image.length)
        _write(self._journal, self._journal_rows * _RECORD.size, record)

    def _append_image(self, row: int, example: Example, sha: bytes, pixel_row: int, length: int) -> None:
        extra = canonical_json(dict(example.extra))
        self._tables["images"].append(
            {
                "image_id": example.image_id,
                "sha256": sha,
                "label": example.label,
                "extra": extra,
                "pixel_row": pixel_row,
                "offset": self._offset,
                "length": length,
            },
            [example.image_id, sha.hex(), example.label, extra],
        )

    # -- texts -------------------------------------------------------------------------------------------------------

    def add_texts(self, split: str, row: int, example: Example) -> None:
        """Store an example's captions and question on image `row`.

        Raises:
            Mt2stError: the question id was used before in this split.
        """
        for text in example.captions:
            self._tables["captions"].append({"image": row, "text": text}, [row, text])
        if example.question is None:
            return
        try:
            self._index.execute("INSERT INTO questions VALUES (?)", (item_key(split, example.question_id),))
        except sqlite3.IntegrityError:
            raise Mt2stError(
                f"split {split!r}: question_id {example.question_id!r} occurs twice; ids must be unique within a split"
            ) from None
        question = {
            "image": row,
            "question_id": example.question_id,
            "question": example.question,
            "question_type": example.question_type,
            "answers": [{"text": answer.text, "annotator": answer.annotator} for answer in example.answers],
            "choices": list(example.choices),
            "extra": canonical_json(dict(example.extra)),
        }
        self._tables["questions"].append(question, question)

    # -- the end -----------------------------------------------------------------------------------------------------

    def start_split(self, name: str) -> None:
        """Everything added from now on belongs to split `name`."""
        self._ranges[name] = {table: [self._tables[table].count] for table in TABLES}

    def end_split(self, name: str) -> dict[str, int]:
        """Close a split. Returns its counts of images, captions and questions."""
        for table in TABLES:
            self._ranges[name][table].append(self._tables[table].count)
        return {table: self._ranges[name][table][1] - self._ranges[name][table][0] for table in TABLES}

    def publish(self, card: DatasetCard, facts: Mapping[str, Any]) -> None:
        """Write the manifest and rename the partial folder to the result.

        What lay there before (damaged) is removed.
        """
        self.close()
        with (self.folder / IMAGES_BIN).open("r+b") as stream:
            stream.truncate(self._offset)
        for name in (_JOURNAL, _SCRATCH, _FAILURES):
            (self.folder / name).unlink(missing_ok=True)
        files = [IMAGES_BIN, *(f"{table}.arrow" for table in TABLES)]
        digests = {table: self._tables[table].digest.hexdigest() for table in TABLES}
        manifest = {
            "format_version": FORMAT_VERSION,
            # As pairs, for JSON objects are written with sorted keys.
            "card": {**asdict(card), "splits": [list(item) for item in card.splits.items()]},
            "split_order": list(self._ranges),
            "splits": self._ranges,
            "files": {
                name: {"bytes": (self.folder / name).stat().st_size, "sha256": file_hash(self.folder / name)}
                for name in files
            },
            "content_hash": hashlib.sha256(
                canonical_json([digests, self._ranges, facts["image_size"]]).encode()
            ).hexdigest(),
            **facts,
        }
        for name in files:
            sync_file(self.folder / name)
        write_sealed_json(self.folder / MANIFEST, manifest)
        if self.result.exists():
            damaged = self.result.with_name(f".{self.result.name}.damaged{PARTIAL_SUFFIX}")
            shutil.rmtree(damaged, ignore_errors=True)
            self.result.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        self.folder.rename(self.result)
        sync_folder(self.result.parent)

    def close(self) -> None:
        """Close all files; what was written stays for a later resume."""
        for table in self._tables.values():
            table.close()
        self._bin.close()
        self._journal.close()
        self._index.close()


class _Reader:
    """The journal of an interrupted preparation, read in order and checked against the stored bytes."""

    def __init__(self, folder: Path) -> None:
        self._journal = (folder / _JOURNAL).open("rb")
        self._bin = (folder / IMAGES_BIN).open("rb")
        self._errors = {}
        if (folder / _FAILURES).exists():
            lines = (folder / _FAILURES).read_text(encoding="utf-8").splitlines()
            # A last line torn by the kill has no journal record yet, and is not needed.
            whole = [json.loads(line) for line in lines if line.endswith("}")]
            self._errors = {bytes.fromhex(line["key"]): line["error"] for line in whole}

    def next(self, key: bytes) -> StoredImage | None:
        record = self._journal.read(_RECORD.size)
        if len(record) == _RECORD.size:
            found, pixel_sha, stored_sha, length = _RECORD.unpack(record)
            if found == key and length == 0 and key in self._errors:
                return StoredImage(error=self._errors[key], reused=True)
            if found == key and length and hashlib.sha256(self._bin.read(length)).digest() == stored_sha:
                return StoredImage(None, pixel_sha, stored_sha, length, reused=True)
        self._journal.close()
        self._bin.close()
        return None


def item_key(split: str, name: str) -> bytes:
    """Key of an image or question inside a split (SHA-256: fixed size however long the id)."""
    return hashlib.sha256(f"{split}\0{name}".encode()).digest()


def _open_kept(path: Path) -> BinaryIO:
    path.touch()
    return path.open("r+b", buffering=0)


def _write(stream: BinaryIO, at: int, content: bytes) -> None:
    stream.seek(at)
    left = memoryview(content)
    while left:  # an unbuffered write may be short when the disk fills
        left = left[stream.write(left) :]
