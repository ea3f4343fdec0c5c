"""What the backend `milvus` stands on: addresses, versions, filters, its errors in our words, its folder.

pymilvus itself is imported when used.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from mt2st.errors import Mt2stError
from mt2st.index._base import Flags

EMBEDDED_KINDS = ("FLAT", "IVF_FLAT", "HNSW", "IVF_SQ8", "HNSW_SQ")
SERVER_KINDS = (*EMBEDDED_KINDS, "IVF_PQ", "SCANN", "DISKANN", "GPU_CAGRA", "GPU_IVF_FLAT", "GPU_IVF_PQ", "AUTOINDEX")
TOKEN_VARIABLE = "MILVUS_TOKEN"
OLDEST_LITE = (3, 2, 2)
UNFINISHED = "_unfinished"
KEY = "id"


def is_server(uri: str) -> bool:
    """Whether the address is that of a server."""
    return uri.startswith(("http://", "https://", "tcp://", "unix:"))


def check_uri(uri: str) -> None:
    """Raise unless it is "", a path that ends in .db, or an address without a password."""
    if not uri:
        return
    if not is_server(uri) and not uri.endswith(".db"):
        raise Mt2stError(f"index 'milvus': uri = {uri!r}; give a path that ends in .db, or http://host:port")
    if is_server(uri) and (urlsplit(uri).username or urlsplit(uri).password):
        raise Mt2stError(
            f"index 'milvus': the address of {urlsplit(uri).hostname} holds a name or password, and addresses are kept "
            f"in records; give the token in the variable {TOKEN_VARIABLE}"
        )


def check_installed(embedded: bool) -> None:
    """Raise unless the packages are there that are needed, in versions that can be trusted."""
    if find_spec("pymilvus") is None:
        raise Mt2stError("index 'milvus' needs the package pymilvus; install it with pip install 'mt2st[milvus]'")
    if not embedded:
        return
    if _installed("faiss-gpu"):
        raise Mt2stError(
            "index 'milvus': embedded Milvus needs faiss-cpu, which breaks the faiss-gpu that is installed; take an "
            "environment of its own (the extras milvus and gpu exclude each other), or a server with uri=http://…"
        )
    found = _installed("milvus-lite")
    if not found:
        raise Mt2stError("index 'milvus' needs the package milvus-lite; install it with pip install 'mt2st[milvus]'")
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < OLDEST_LITE:
        raise Mt2stError(
            f"index 'milvus': milvus-lite {found} ignores search parameters or searches without its index; install "
            f"{'.'.join(map(str, OLDEST_LITE))} or newer"
        )


def filter_text(allowed: Flags) -> str:
    """Milvus's expression for a set of ids: those in it, or those out of it, whichever are fewer."""
    out = 2 * int(allowed.sum()) > len(allowed)
    numbers = ",".join(map(str, np.flatnonzero(~allowed if out else allowed)))
    return f"{KEY} {'not in' if out else 'in'} [{numbers}]"


@contextmanager
def in_our_words(what: str, where: str) -> Iterator[None]:
    """Milvus's exceptions as `Mt2stError`, shortened to their message."""
    from grpc import RpcError
    from pymilvus import MilvusException

    try:
        yield
    except (MilvusException, RpcError, OSError, ValueError) as error:
        message = " ".join(str(getattr(error, "message", "") or error).split()) or type(error).__name__
        cure = "see whether it runs, has room, and is of a version that this client knows"
        if "Open local milvus failed" in message:
            cure = "another process may have it open, or it is damaged: one process a folder, or build it again"
        raise Mt2stError(f"Milvus at {where} failed to {what}: {message[:300]}; {cure}") from None


def _installed(package: str) -> str:
    """Version of a package; "" where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def release(database: str) -> None:
    """Stop the embedded server of a folder."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(database)


def discard(folder: str) -> None:
    """Stop the embedded server of a folder that goes away, and delete it."""
    if find_spec("milvus_lite") is not None:
        release(f"{folder}/vectors.db")
    shutil.rmtree(folder, ignore_errors=True)


def extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, database: Path) -> None:
    """Write one file of the archive below `database`, or nowhere."""
    parts = Path(member.filename).parts
    if parts[:1] != ("database",):
        return
    if member.is_dir() or len(parts) < 2 or ".." in parts or member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename[:80]!r} is no file of a database")
    target = database.joinpath(*parts[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream)
