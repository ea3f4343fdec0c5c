"""Files that are whole or not there: written aside, synced, renamed; JSON sealed with a checksum inside.

A crash between any two operations leaves either the old file or the new one, never a mixture; leftovers carry the
suffix `.partial` and are never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mt2st.errors import Mt2stError

PARTIAL_SUFFIX = ".partial"
_SEAL = "sha256"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`.

    When the block ends well it is synced and renamed to `path`, otherwise deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    try:
        # Not mkstemp: it makes files private, and results are meant to be read by others, as far as the umask allows.
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        yield partial
        sync_file(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Force the file's content to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Force the folder's entries to the disk (fsync), so that a rename survives a power loss."""
    sync_file(path)


def new_folder(parent: Path, name: str) -> Path:
    """Make a folder `name` in `parent`, with a number behind the name where it exists: nobody else writes there.

    Raises:
        FileExistsError: it exists with a thousand numbers.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1000):
        folder = parent / (f"{name}-{number}" if number else name)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent / name} and 999 others exist")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN. What hashes are computed on.

    Raises:
        ValueError: the value holds NaN or an infinity; TypeError: it holds something JSON has no form for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """SHA-256 (hex) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest_blocks(stream)
        )


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object atomically, with its own SHA-256 inside (key `sha256`): a torn or edited file is noticed."""
    if _SEAL in value:
        raise Mt2stError(f"{path}: the key {_SEAL!r} is reserved for the seal; rename that field")
    sealed = {**value, _SEAL: content_hash(value)}
    write_text(path, json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_sealed_json(path: Path, cure: str) -> dict[str, Any]:
    """Read what `write_sealed_json` wrote, without the seal.

    Args:
        path: the file.
        cure: how to rebuild the file, appended to every error.

    Raises:
        Mt2stError: the file is missing, is not a JSON object, or its content does not match its seal.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Mt2stError(f"{path} is missing; {cure}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or a number of more digits than Python reads
        raise Mt2stError(f"{path} is not valid JSON ({error}); {cure}") from None
    if not isinstance(value, dict) or _SEAL not in value:
        raise Mt2stError(f"{path} carries no checksum, so it is torn or not ours; {cure}")
    seal = value.pop(_SEAL)
    try:
        whole = content_hash(value) == seal
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise Mt2stError(f"{path} does not match its checksum, so it is torn or edited; {cure}")
    return value


def _digest_blocks(stream: Any) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
