"""A folder of embeddings, whole or unfinished.

    images.npy        [N, E] float32, unit rows, in the order of the prepared split
    texts.npy         [C, E] float32
    text_image.npy    [C] int64, the row in images.npy that text j belongs to
    image_ids.jsonl   the set's own id of each image, one JSON string a line
    manifest.json     run, checkpoint, data, rows, width, size and SHA-256 of each file; sealed; written last
    retrieval.json    the retrieval metrics, where they were asked for

While work goes on, everything is in `.unfinished/`: the plan, the arrays with holes, and one small file for each shard
whose rows are on the disk, with their SHA-256.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mt2st.errors import Mt2stError
from mt2st.files import (
    PARTIAL_SUFFIX,
    file_hash,
    read_sealed_json,
    sync_file,
    sync_folder,
    write_sealed_json,
    write_text,
)
from mt2st.vectors import read_vectors, write_npy_header

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"
LOCK = ".lock"
SCRATCH = ".ranking-"  # folder of an evaluation while it runs
KIND = "mt2st embeddings"
FORMAT_VERSION = 1
ARRAYS = ("images.npy", "texts.npy", "text_image.npy")
FILES = (*ARRAYS, "image_ids.jsonl")
Kind = Literal["images", "texts"]
_CURE = "delete the folder and embed the set again"


@dataclass(frozen=True)
class Embeddings:
    """A whole folder, opened: arrays are memory-mapped."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def images(self) -> Path:
        """File of [N, E] float32."""
        return self.folder / "images.npy"

    @property
    def texts(self) -> Path:
        """File of [C, E] float32."""
        return self.folder / "texts.npy"

    def text_image(self) -> NDArray[np.int64]:
        """[C], the image of each text."""
        return np.asarray(read_vectors(self.folder / "text_image.npy")[""])


def is_embeddings(folder: Path) -> bool:
    """Whether `folder` has the marks of embeddings, whole or unfinished; `open_embeddings` looks closer."""
    return (folder / UNFINISHED).is_dir() or (folder / MANIFEST).is_file()


def open_embeddings(folder: Path, verify: Literal["quick", "full"] = "quick") -> Embeddings:
    """Open a whole folder.

    Args:
        verify: "quick" looks at the manifest's seal and the files' sizes, "full" also at each file's SHA-256.

    Raises:
        Mt2stError: unfinished, torn, edited, or not ours.
    """
    if not (folder / MANIFEST).is_file() and (folder / UNFINISHED).is_dir():
        raise Mt2stError(f"{folder} holds unfinished embeddings; repeat the command that began them")
    manifest = read_sealed_json(folder / MANIFEST, _CURE)
    if manifest.get("kind") != KIND:
        raise Mt2stError(f"{folder} holds something else than embeddings; give another folder")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise Mt2stError(
            f"{folder / MANIFEST} is of format {manifest.get('format_version')}, not {FORMAT_VERSION}; {_CURE}"
        )
    for name, facts in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else 0
        if size != facts["bytes"]:
            raise Mt2stError(f"{path} has {size} bytes instead of {facts['bytes']}, so it is torn; {_CURE}")
        if verify == "full" and file_hash(path) != facts["sha256"]:
            raise Mt2stError(f"{path} does not match its SHA-256, so it is damaged or edited; {_CURE}")
    return Embeddings(folder, manifest)


def tidy(folder: Path) -> None:
    """Remove what killed processes left behind in a whole folder. Needs the lock."""
    for leftover in (folder / UNFINISHED, *folder.glob(f"{SCRATCH}*"), *folder.glob(f".*{PARTIAL_SUFFIX}")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


@dataclass(frozen=True)
class Unfinished:
    """The arrays of `folder` while they are filled; `rows` images and texts, `width` numbers each."""

    folder: Path
    rows: Mapping[str, int]
    width: int

    @property
    def work(self) -> Path:
        """The folder inside that holds what is not whole yet."""
        return self.folder / UNFINISHED

    def place(self, name: str) -> Path:
        """Where a file is now: it moves when all are made."""
        final = self.folder / name
        return final if final.exists() else self.work / name

    def begin(self) -> None:
        """Make the files of both arrays, unless they are there.

        Raises:
            Mt2stError: the disk has no room for them.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        for kind in ("images", "texts"):
            path = self.place(f"{kind}.npy")
            if path.exists():
                continue
            needed = 4 * self.rows[kind] * self.width
            free = shutil.disk_usage(self.folder).free
            if needed > free:
                raise Mt2stError(
                    f"{path} needs {needed / 1e9:.3g} GB, but {free / 1e9:.3g} GB are free in {self.folder}; make "
                    "room, or choose another disk with --out"
                )
            aside = path.with_suffix(".new")
            with aside.open("wb") as stream:
                write_npy_header(stream, np.dtype(np.float32), (self.rows[kind], self.width))
                stream.truncate(stream.tell() + needed)
            aside.rename(path)

    def put(self, kind: Kind, start: int, rows: NDArray[np.float32]) -> None:
        """Write rows, and then the note that they are on the disk.

        Raises:
            Mt2stError: they cannot be written.
        """
        path = self.place(f"{kind}.npy")
        raw = np.ascontiguousarray(rows, np.float32).tobytes()
        try:
            with path.open("r+b") as stream:
                stream.seek(self._offset(path, kind, start))
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            write_text(self._note(kind, start), sha256(raw).hexdigest())
        except OSError as error:
            raise Mt2stError(
                f"{path}: {error.strerror}; make room or mend the disk, and repeat the command: it goes on"
            ) from None

    def holds(self, kind: Kind, start: int, stop: int) -> bool:
        """Whether the rows from `start` to `stop` were put there, and are as they were put."""
        note, path = self._note(kind, start), self.place(f"{kind}.npy")
        if not note.exists():
            return False
        with path.open("rb") as stream:
            stream.seek(self._offset(path, kind, start))
            raw = stream.read(4 * self.width * (stop - start))
        return note.read_text() == sha256(raw).hexdigest()

    def finish(self, facts: Mapping[str, Any]) -> Embeddings:
        """Publish: the files move to their places, then the manifest names them."""
        for name in FILES:
            if (self.work / name).exists():
                sync_file(self.work / name)
                (self.work / name).rename(self.folder / name)
        sync_folder(self.folder)
        listing = {
            name: {"bytes": (self.folder / name).stat().st_size, "sha256": file_hash(self.folder / name)}
            for name in FILES
        }
        manifest = {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            **facts,
            "rows": dict(self.rows),
            "width": self.width,
            "files": listing,
        }
        write_sealed_json(self.folder / MANIFEST, manifest)
        shutil.rmtree(self.work)
        return Embeddings(self.folder, manifest)

    def _offset(self, path: Path, kind: str, start: int) -> int:
        """Bytes before row `start`."""
        return path.stat().st_size - 4 * self.width * (self.rows[kind] - start)

    def _note(self, kind: str, start: int) -> Path:
        return self.work / f"{kind}-{start:012d}"
