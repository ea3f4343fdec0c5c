"""A gallery: the pictures of a folder through a trained model, embedded once and kept.

    gallery = embed_gallery(model, Path("pictures"), Path("cache"))
    gallery.names, gallery.embeddings        # N relative paths, [N, D] float32 of unit length

Embeddings are kept in parts, each a safetensors file that names its pictures with their size and time of change. A part
is whole or not there, so what was interrupted goes on; pictures that are new or were changed are embedded again, and
those that are gone are left out. A picture that cannot be read is named once and passed over until it changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mt2st.data.images import picture_files
from mt2st.errors import Mt2stError
from mt2st.files import content_hash, write_bytes
from mt2st.trained.pictures import in_batches

_PART = 512  # pictures a file: what an interrupted run may have to do again
_Stamp = tuple[int, int]  # size in bytes, time of change in nanoseconds


@dataclass(frozen=True)
class Gallery:
    """Embedded pictures.

    Attributes:
        folder: where the pictures are.
        names: N paths relative to it, sorted.
        embeddings: [N, D] float32, unit length.
        unreadable: picture → why it was left out.
        embedded: how many pictures were embedded now; the others were kept.
    """

    folder: Path
    names: list[str]
    embeddings: np.ndarray
    unreadable: Mapping[str, str] = field(default_factory=dict)
    embedded: int = 0

    def path(self, position: int) -> Path:
        """The picture at a position of `names`."""
        return self.folder / self.names[position]


def embed_gallery(
    model: Any,
    folder: Path,
    cache: Path,
    *,
    batch_size: int = 256,
    on_pictures: Callable[[int], None] = lambda count: None,
) -> Gallery:
    """The gallery of all pictures in `folder` and its subfolders; what was embedded before is taken from `cache`.

    Args:
        model: a `VisionLanguageModel`.
        cache: folder of kept embeddings, of all models and galleries.
        batch_size: pictures at a time.
        on_pictures: called with the number of pictures done since the last call.

    Raises:
        Mt2stError: no pictures, or none that can be read.
    """
    folder = folder.resolve()
    files = {path.relative_to(folder).as_posix(): _stamp(path) for path in picture_files(folder)}
    place = cache / content_hash([model.fingerprint, str(folder)])[:16]
    known = _kept(place, files, model.embedding_width)
    on_pictures(len(known.rows) + len(known.unreadable))
    todo = [name for name in files if name not in known.rows and name not in known.unreadable]
    for names in in_batches(todo, _PART):
        _embed_part(model, folder, place, {name: files[name] for name in names}, batch_size, on_pictures)
    if todo:
        known = _kept(place, files, model.embedding_width)
    if not known.rows:
        raise Mt2stError(
            f"{folder}: none of {len(files)} pictures can be read ({next(iter(known.unreadable.values()))})"
        )
    _tidy(place, known)
    names = sorted(known.rows)
    return Gallery(folder, names, np.stack([known.rows[name] for name in names]), known.unreadable, len(todo))


@dataclass
class _Known:
    """What the parts of a folder hold of the pictures as they are now."""

    rows: dict[str, np.ndarray] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    used: set[Path] = field(default_factory=set)


def _stamp(path: Path) -> _Stamp:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _kept(place: Path, files: Mapping[str, _Stamp], width: int) -> _Known:
    """What earlier runs kept; a part that is torn or foreign counts as not there."""
    known = _Known()
    for path in sorted(place.glob("part-*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as part:
                about = json.loads((part.metadata() or {})["pictures"])
                rows = part.get_tensor("embeddings")
            names, stamps, bad = about["names"], [tuple(stamp) for stamp in about["stamps"]], about["unreadable"]
            if rows.shape != (len(names), width) or len(stamps) != len(names) + len(bad):
                continue
        except (SafetensorError, OSError, LookupError, TypeError, ValueError):
            continue
        for name, stamp, row in zip(names, stamps, rows, strict=False):
            if files.get(name) == stamp:
                known.rows[name] = row
                known.used.add(path)
        for (name, why), stamp in zip(bad, stamps[len(names) :], strict=True):
            if files.get(name) == stamp:
                known.unreadable[name] = why
                known.used.add(path)
    return known


def _embed_part(
    model: Any,
    folder: Path,
    place: Path,
    files: Mapping[str, _Stamp],
    batch_size: int,
    on_pictures: Callable[[int], None],
) -> None:
    names: list[str] = []
    bad: list[tuple[str, str]] = []
    rows = [np.zeros((0, model.embedding_width), np.float32)]
    for batch in in_batches(files, batch_size):
        readable, pixels = _decoded(model, folder, batch, bad)
        if readable:
            rows.append(model.embed_images(pixels, batch_size=batch_size))
            names += readable
        on_pictures(len(batch))
    stamps = [files[name] for name in (*names, *(name for name, _ in bad))]
    about = {"pictures": json.dumps({"names": names, "stamps": stamps, "unreadable": bad})}
    content = save({"embeddings": np.concatenate(rows)}, metadata=about)
    write_bytes(place / f"part-{content_hash(about)[:24]}.safetensors", content)


def _decoded(model: Any, folder: Path, names: Sequence[str], bad: list[tuple[str, str]]) -> tuple[list[str], list[Any]]:
    """The names of readable pictures and their pixels; the others are added to `bad`."""
    readable, pixels = [], []
    for name in names:
        try:
            pixels.append(model.pixels([folder / name])[0])
            readable.append(name)
        except Mt2stError as error:
            bad.append((name, str(error)))
    return readable, pixels


def _tidy(place: Path, known: _Known) -> None:
    """Delete the parts of which nothing is used any more."""
    for path in place.glob("part-*.safetensors"):
        if path not in known.used:
            path.unlink(missing_ok=True)
