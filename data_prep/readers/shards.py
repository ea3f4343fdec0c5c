"""webdataset tar shards, read as a stream. Nothing is ever extracted to disk, so no member can write anywhere.

Links, devices and names that leave the archive are refused all the same: a shard that holds them is not what it claims
to be.
"""

from __future__ import annotations

import json
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.readers.rows import example_from_row
from mt2st.data.card import Example
from mt2st.errors import Mt2stError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")
# A member above this is refused before it is read: a small compressed shard can unpack to anything.
MAX_MEMBER_BYTES = 256 << 20
MAX_MEMBERS_OF_A_SAMPLE = 64
# What the standard library's readers are known to raise on damaged archives; TypeError on a gzip header of three bytes.
_ARCHIVE_ERRORS = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    LookupError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


def read_shard(path: Path, mapping: Mapping[str, str] | None = None) -> Iterator[Example]:
    """The samples of a shard, in order.

    Without a mapping, x.jpg is the image, x.txt a caption, and x.json gives caption, question, answers … by our field
    names. With one, its columns are those of x.json, beside "txt", "cls" and "image" for the other members.

    Raises:
        Mt2stError: names the shard and the member: damaged archive, link, device, name leaving the archive, oversized
            member.
    """
    for number, (key, members) in enumerate(_samples(path)):
        place = f"{path}, sample {key!r}"
        row: dict[str, Any] = {}
        for suffix, content in members.items():
            if suffix in IMAGE_SUFFIXES:
                row["image"] = content
            elif suffix == "json":
                row |= _json(content, place)
            else:
                row[suffix] = _decode(content, f"{place}, member .{suffix}")
        chosen = dict(mapping) if mapping else _plain_mapping(row)
        if "image" in row:
            chosen.setdefault("image", "image")
        row.setdefault("__key__", key)
        chosen.setdefault("image_id", "__key__")
        yield example_from_row(row, chosen, place, number)


def _plain_mapping(row: Mapping[str, Any]) -> dict[str, str]:
    fields = ("captions", "question", "question_id", "answers", "choices", "label", "question_type")
    found = {field: field for field in fields if field in row}
    for field, column in (("captions", "txt"), ("captions", "caption"), ("answers", "answer"), ("label", "cls")):
        if column in row:
            found.setdefault(field, column)
    return found


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    key = ""
    members: dict[str, bytes] = {}
    for name, content in _members(path):
        # As webdataset does: the key ends at the first dot of the file name.
        folder, _, file = name.rpartition("/")
        stem, _, suffix = file.partition(".")
        found = f"{folder}/{stem}" if folder else stem
        if found != key:
            if members:
                yield key, members
            key, members = found, {}
        if suffix.lower() in members:
            raise Mt2stError(f"{path}, member {name!r} occurs twice in its sample; write the shard again")
        if len(members) == MAX_MEMBERS_OF_A_SAMPLE:
            raise Mt2stError(
                f"{path}, sample {key!r} has more than {MAX_MEMBERS_OF_A_SAMPLE} members; is it a webdataset shard?"
            )
        members[suffix.lower()] = content
    if members:
        yield key, members


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isdir():
                    continue
                _check_member(path, member)
                stream = archive.extractfile(member)
                content = stream.read(member.size) if stream else b""
                if len(content) != member.size:
                    raise Mt2stError(f"{path}, member {member.name!r} is cut off; download the shard again")
                yield member.name, content
    except FileNotFoundError:
        raise Mt2stError(f"{path} is missing; check the path of the shards") from None
    except _ARCHIVE_ERRORS as error:
        if isinstance(error, Mt2stError):
            raise
        raise Mt2stError(f"{path} is not a readable tar archive ({error}); download the shard again") from None


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    place = f"{path}, member {member.name!r}"
    if member.issym() or member.islnk():
        raise Mt2stError(f"{place} is a link; shards may hold plain files only")
    if not member.isreg():
        raise Mt2stError(f"{place} is a device or other special file; shards may hold plain files only")
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise Mt2stError(f"{place} leaves the archive; refused")
    if member.size > MAX_MEMBER_BYTES:
        raise Mt2stError(f"{place} has {member.size} bytes, above the limit of {MAX_MEMBER_BYTES}; refused")


def _json(content: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Mt2stError(f"{place}, member .json is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise Mt2stError(f"{place}, member .json holds {type(value).__name__}, not an object")
    return value


def _decode(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Mt2stError(f"{place} is not UTF-8 text ({error.reason} at byte {error.start})") from None
