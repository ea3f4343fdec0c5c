"""Indexes on disk: a sealed manifest, and beside it the backend's own file, which the manifest names.

    tools.index.json                the manifest of the index `tools.index`: backend, parameters, data set's hash, token
    tools.index.0123456789abcdef    the backend's file of that token; every save draws a new one

An index of other data looks perfectly healthy and gives perfectly wrong answers; so loading takes the hash of the data
that the caller means, and refuses any other. No file is read before its SHA-256 agrees with the manifest, and none
through pickle.

A save writes the new file, then the manifest that names it, then deletes the file that the manifest named before: a
crash between any two operations leaves the old index or the new one, never a manifest of one with the file of the
other. At worst it leaves a file that nothing names. Several processes that save at once delete no file that is in use,
for each saves under its own token.
"""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mt2st.errors import Mt2stError
from mt2st.files import atomic_path, file_hash, read_sealed_json, write_sealed_json
from mt2st.index._base import VectorIndex

FORMAT_VERSION = 2
_TOKEN = re.compile(r"[0-9a-f]{16}")
_KINDS = {
    "data_hash": str,
    "token": str,
    "file_sha256": str,
    "backend": str,
    "parameters": dict,
    "count": int,
    "width": int,
}
_MOST_WITH_REMOVED = 1 << 32
_CURE = "build the index again and save it with mt2st.index.save_index"


def manifest_path(path: Path) -> Path:
    """Where the manifest of the index `path` lies."""
    return path.with_name(path.name + ".json")


def data_path(path: Path, token: str) -> Path:
    """Where the backend's file of the index `path` lies: always beside the manifest, whatever that says.

    Raises:
        Mt2stError: the token is not 16 hexadecimal digits, so it could lead elsewhere.
    """
    if not _TOKEN.fullmatch(token):
        raise Mt2stError(f"{manifest_path(path)} has token {token[:80]!r}, which is not 16 hexadecimal digits; {_CURE}")
    return path.with_name(f"{path.name}.{token}")


def save_index(index: VectorIndex, path: Path, data_hash: str) -> None:
    """Write the index to two files that begin with `path`.

    An index that was there is replaced at once, or stays if anything fails.

    Args:
        index: an index with items.
        path: the name that `load_index` finds it by; the files are `path`.json and `path`.TOKEN.
        data_hash: content hash of the data set, such as `mt2st.vectors.matrix_hash(embeddings)`.

    Raises:
        Mt2stError: the index is empty, or the hash is.
    """
    if not len(index) or index.width is None:
        raise Mt2stError(
            f"the {index.backend} index holds no items, so there is nothing to save to {path}; call add(embeddings) "
            "first"
        )
    if not data_hash:
        raise Mt2stError(
            f"data_hash is empty; give the content hash of the data set, so that {path} is never used with another"
        )
    before = _saved_file(path)
    token = secrets.token_hex(8)
    file = data_path(path, token)
    with atomic_path(file) as partial:
        index.write(partial)
    write_sealed_json(
        manifest_path(path),
        {
            "format_version": FORMAT_VERSION,
            "backend": index.backend,
            "parameters": index.parameters,
            "count": index.ids_given,
            "removed": index.removed.tolist(),
            "width": index.width,
            "data_hash": data_hash,
            "token": token,
            "file_sha256": file_hash(file),
        },
    )
    if before is not None:
        before.unlink(missing_ok=True)


def load_index(path: Path, data_hash: str) -> VectorIndex:
    """The index that `save_index` wrote.

    Args:
        path: what `save_index` was given.
        data_hash: content hash of the data set that the caller means.

    Raises:
        Mt2stError: file or manifest missing, torn or not ours, or an index of another data set.
    """
    from mt2st.index import create_index

    manifest = read_sealed_json(manifest_path(path), _CURE)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise Mt2stError(
            f"{manifest_path(path)} has format {manifest.get('format_version')!r}, not {FORMAT_VERSION}; {_CURE}"
        )
    if wrong := [name for name, kind in _KINDS.items() if not isinstance(manifest.get(name), kind)]:
        raise Mt2stError(f"{manifest_path(path)} has no usable {', '.join(wrong)}; {_CURE}")
    if manifest["data_hash"] != data_hash:
        raise Mt2stError(
            f"{path} is an index of another data set (content {manifest['data_hash'][:12]}…, wanted "
            f"{data_hash[:12]}…); {_CURE}"
        )
    file = data_path(path, manifest["token"])
    if not file.is_file():
        raise Mt2stError(f"{file} is missing, only its manifest is there; {_CURE}")
    if file_hash(file) != manifest["file_sha256"]:
        raise Mt2stError(f"{file} does not match its manifest, so it is torn or was replaced; {_CURE}")
    backend = manifest["backend"]
    if "." in backend and backend not in sys.modules:  # a file must not decide which code is imported
        raise Mt2stError(
            f"{manifest_path(path)} names the backend {backend!r}, which is not ours; import that module first if you "
            "trust it"
        )
    try:
        index = create_index(backend, **manifest["parameters"])
        index.restore(file, manifest["count"], manifest["width"], _removed(path, manifest))
    except Mt2stError:
        raise
    except (
        SafetensorError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # vouched for, and yet no index of ours
        raise Mt2stError(
            f"{file} cannot be read as an index of {backend!r} ({' '.join(str(error).split())[:200]}); {_CURE}"
        ) from None
    return index


def _removed(path: Path, manifest: dict[str, Any]) -> list[int]:
    """Ids that the manifest says were removed; an index saved before removal was possible says nothing."""
    ids = manifest.get("removed", [])
    count = manifest["count"]
    sound = isinstance(ids, list) and all(type(number) is int and 0 <= number < count for number in ids)
    if not sound or (ids and count > _MOST_WITH_REMOVED):  # a flag for each is made
        raise Mt2stError(f"{manifest_path(path)} has no usable list of removed ids; {_CURE}")
    return ids


def _saved_file(path: Path) -> Path | None:
    """The file that the manifest of `path` names; None where there is no manifest, or none of ours."""
    try:
        return data_path(path, str(read_sealed_json(manifest_path(path), _CURE).get("token")))
    except Mt2stError:
        return None
