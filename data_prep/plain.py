"""Datasets that need no code: tables with plain columns, image folders, caption files, tar shards, Hub datasets.

`open_plain` tells them apart by what lies at the path:
    hf:owner/name[:configuration][@revision]
                               a dataset of the Hugging Face Hub (or a local one in its format), columns by `--map`
    x.parquet .jsonl .csv      one split, "train"; columns by `--map`, or by carrying our field names
    x.tsv                      open_clip's caption file: tab-separated with a header; columns "filepath" and "title"
    x.toml                     any of these with names, splits, card and mapping written down (see data_prep/README.md)
    a folder                   with metadata.jsonl/.csv (also in train/, test/ …): the Hugging Face ImageFolder layout;
                               with <split>*.parquet: the layout of a Hub dataset; with *.tar: webdataset shards
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from data_prep.cards import card_of
from data_prep.hub import open_hub
from data_prep.readers.rows import checked_mapping, example_from_row, guess_mapping, path_inside, unmapped
from data_prep.readers.shards import read_shard
from data_prep.readers.tables import TABLE_SUFFIXES, read_table
from mt2st.data.card import DatasetCard, Example
from mt2st.errors import Mt2stError, unknown_name

F = TypeVar("F")

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_TOML_KEYS = (
    "name", "title", "task", "source", "revision", "licence", "main_metric", "protocol", "notes", "paper", "data",
    "splits", "map",
)  # fmt: skip


@dataclass(frozen=True)
class PlainTables:
    """Rows of local tables.

    `files`: split → tables, read one after another; image paths are relative to each table's folder.
    """

    CARD: DatasetCard
    path: Path
    files: Mapping[str, tuple[Path, ...]]
    mapping: Mapping[str, str] = field(default_factory=dict)

    def default_source(self) -> Path:
        """The file or folder that was named."""
        return self.path

    def examples(self, split: str) -> Iterator[Example]:
        """The rows of `split`, in file order."""
        number = 0
        for path in _of_split(self.files, split, self.CARD):
            for at, row in enumerate(read_table(path)):
                mapping = self.mapping or guess_mapping(list(row))
                if not mapping:
                    raise unmapped(str(path), list(row))
                yield example_from_row(row, mapping, f"{path}, record {at}", number, path.parent)
                number += 1


@dataclass(frozen=True)
class ImageFolder:
    """The Hugging Face ImageFolder layout: images beside a metadata file whose column `file_name` names them."""

    CARD: DatasetCard
    path: Path
    files: Mapping[str, Path]
    mapping: Mapping[str, str] = field(default_factory=dict)

    def default_source(self) -> Path:
        """The folder that was named."""
        return self.path

    def examples(self, split: str) -> Iterator[Example]:
        """The rows of the metadata file of `split`, in file order."""
        path = _of_split(self.files, split, self.CARD)
        for number, row in enumerate(read_table(path)):
            place = f"{path}, record {number}"
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                raise Mt2stError(f"{place}: no 'file_name'; each row of an image folder's metadata must name its image")
            path_inside(path.parent, name, place)
            others = {key: value for key, value in row.items() if key != "file_name"}
            mapping = self.mapping or guess_mapping(list(others))
            yield example_from_row(row, {**mapping, "image": "file_name"}, place, number, path.parent)


@dataclass(frozen=True)
class TarShards:
    """webdataset shards: members with one stem (x.jpg, x.txt, x.json) are one sample.

    `files`: split → shards, in order.
    """

    CARD: DatasetCard
    path: Path
    files: Mapping[str, tuple[Path, ...]]
    mapping: Mapping[str, str] = field(default_factory=dict)

    def default_source(self) -> Path:
        """The file or folder that was named."""
        return self.path

    def examples(self, split: str) -> Iterator[Example]:
        """The samples of all shards of `split`, in order."""
        for shard in _of_split(self.files, split, self.CARD):
            yield from read_shard(shard, self.mapping)


def _of_split(files: Mapping[str, F], split: str, card: DatasetCard) -> F:
    if split not in files:
        raise unknown_name(f"split of {card.name!r}", split, files)
    return files[split]


def is_plain(name: str) -> bool:
    """Whether `open_plain` is responsible for a dataset's name."""
    if name.startswith("hf:") or name.endswith((*TABLE_SUFFIXES, ".toml", ".tar")):
        return True
    return ("/" in name and not name.endswith(".py")) or name in (".", "..")


def open_plain(name: str, mapping: Mapping[str, str] | None = None, facts: Mapping[str, Any] | None = None) -> Any:
    """An adapter for data that need no code (see the top of this file).

    Args:
        name: what the user named.
        mapping: field → column; empty uses columns that carry our field names.
        facts: fields of the card that the user wrote down.

    Raises:
        Mt2stError: nothing there is a dataset we know the layout of.
    """
    mapping = checked_mapping(mapping or {})
    facts = dict(facts or {})
    if name.startswith("hf:"):
        return open_hub(name, mapping, facts)
    path = Path(name)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # too long a name, or one with a null byte
        raise Mt2stError(
            f"{name[:80]!r} is no file name ({error.__class__.__name__}); give a file or folder of data"
        ) from None
    if not exists:
        raise Mt2stError(f"{path} does not exist; give a file or folder of data, or hf:owner/name")
    if path.suffix == ".toml":
        return _from_toml(path, mapping)
    if path.is_file():
        if path.suffix == ".tar":
            return TarShards(card_of(path.stem, mapping, {"train": None}, facts), path, {"train": (path,)}, mapping)
        if path.suffix == ".tsv" and not mapping:
            mapping = {"image": "filepath", "captions": "title"}
        return PlainTables(card_of(path.stem, mapping, {"train": None}, facts), path, {"train": (path,)}, mapping)
    return _folder(path, mapping, facts)


def _folder(path: Path, mapping: Mapping[str, str], facts: dict[str, Any]) -> Any:
    layouts: list[tuple[Callable[[Path], dict[str, Any]], type]] = [
        (_metadata_files, ImageFolder),
        (lambda folder: _split_files(folder, "tar"), TarShards),
        (lambda folder: _split_files(folder, "parquet"), PlainTables),
        (lambda folder: _split_files(folder, "jsonl"), PlainTables),
    ]
    for find, kind in layouts:
        if files := find(path):
            return kind(card_of(path.name, mapping, dict.fromkeys(files), facts), path, files, mapping)
    raise Mt2stError(
        f"{path} is no dataset folder: it holds neither metadata.jsonl or metadata.csv (an image folder), nor .tar "
        "shards, nor "
        "<split>*.parquet or .jsonl tables"
    )


def _metadata_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for place, split in [
        (folder, "train"),
        *((child, child.name) for child in sorted(folder.iterdir()) if child.is_dir()),
    ]:
        for name in _METADATA:
            if (place / name).is_file():
                found.setdefault(split, place / name)
    return found


def _split_files(folder: Path, suffix: str) -> dict[str, tuple[Path, ...]]:
    """Split → files, by the words before the first digit or dash of their names: train-00000-of-00002.parquet,
    val_000.tar.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted([*folder.glob(f"*.{suffix}"), *folder.glob(f"data/*.{suffix}"), *folder.glob(f"*/*.{suffix}")]):
        name = path.parent.name if path.parent != folder and path.parent.name != "data" else path.stem
        match = re.match(r"[A-Za-z]+", name)
        split = match[0].lower() if match else "train"
        if path not in found.get(split, ()):
            found[split] = (*found.get(split, ()), path)
    return found


def _from_toml(path: Path, mapping: Mapping[str, str]) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mt2stError(f"{path} is not valid TOML ({error})") from None
    for key in content:
        if key not in _TOML_KEYS:
            raise unknown_name(f"key in {path}", key, _TOML_KEYS)
    if not isinstance(content.get("map", {}), dict) or not isinstance(content.get("splits", {}), dict):
        raise Mt2stError(f"{path}: 'map' and 'splits' must be tables, such as [map] with image = \"img\"")
    mapping = mapping or checked_mapping(content.pop("map", {}))
    data = content.pop("data", None)
    if isinstance(data, str) and data.startswith("hf:"):
        return open_plain(data, mapping, content)
    splits = content.pop("splits", {})
    if splits:
        files = {}
        for split, names in splits.items():
            listed = [names] if isinstance(names, str) else names
            if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
                raise Mt2stError(f"{path}: split {split!r} is {names!r}; give a file name or a list of them")
            files[split] = tuple(path_inside(path.parent, name, f"{path}, split {split!r}") for name in listed)
        return PlainTables(card_of(path.stem, mapping, dict.fromkeys(files), content), path.parent, files, mapping)
    if not isinstance(data, str):
        raise Mt2stError(
            f'{path} says neither where the data are (data = "hf:owner/name" or a path) nor [splits] with a file each'
        )
    return open_plain(str(path.parent / data), mapping, content)
