"""Open Clip Art: drawings by many hands, with a title and keywords each, in the public domain.

Reads the library's SVG files (Debian package openclipart-svg, release 0.18). Captions: the title; the title with the
keywords; the keywords.

Left out: what the house's SVG rules refuse (`data_prep.svg`); drawings without a title of their own, for many carry the
name of their collection; files that draw what another one draws, whose captions go to the first.

Splits: a *group* is all drawings of one title, or of one series by one author (`bird_ann_01.svg`, `bird_ann_02.svg`),
or with equal pixels. The test split is every drawing of one fifth of the groups, so nothing in it was seen in training.
A split by files alone would repeat pictures across it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_prep.svg import draw_svg
from mt2st.data.card import DatasetCard, Example
from mt2st.data.images import ImageError
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="openclipart",
    title="Open Clip Art",
    task="retrieval",
    source="openclipart.org; Debian package openclipart-svg",
    revision="0.18",
    licence="public domain",
    splits={"train": None, "test": None},
    main_metric="hit_rate@1",
    protocol="main-caption",  # the title asks
    requires="package resvg-py (extra `data`), and the SVG files: "
    "/usr/share/openclipart/svg (Debian's openclipart-svg), or --source",
    notes="Drawings without a title of their own are left out and equal pictures are merged; the manifest counts both. "
    "Checked here against the full set.",
)

NATIVE_SIDE = 64  # pixels; at this size pictures are compared, so that splits do not depend on the prepared size
TEST_SHARE = 0.2
MOST_OF_A_TITLE = 10  # drawings; a title that more of them carry names a collection
MOST_BYTES = 1 << 20  # of a file; the few larger ones are traced photographs
_DC, _RDF = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_NO_KEYWORD = re.compile(r"hash|unsorted|clip_?art|0x[0-9a-f]+", re.IGNORECASE)
_SERIES_NUMBER = re.compile(r"[_-]*\d+[a-z]?$")
_BY = re.compile(r"clip ?art by .+? - ", re.IGNORECASE)


@dataclass(frozen=True)
class Drawing:
    """One picture: its file, its PNG at the native size, its captions, its group and its split."""

    path: Path
    png: bytes
    captions: tuple[str, ...]
    group: str
    split: str


def default_source() -> Path:
    """Where Debian's package openclipart-svg puts the files."""
    folder = Path("/usr/share/openclipart/svg")
    if not folder.is_dir():
        raise Mt2stError(
            "dataset 'openclipart' needs its SVG files: apt install openclipart-svg (Debian, Ubuntu), or --source "
            "FOLDER"
        )
    return folder


def fingerprint() -> str:
    """Version of what draws the pictures: another may give other pixels."""
    return f"resvg-py {version('resvg-py')}"


def left_out(*, source: Path) -> dict[str, int]:
    """How many files are no examples of their own, and why."""
    files, titled, drawn = len(_files(source)), len(_titled(source)), _drawn(source)
    pictures = len({png for _, png in drawn})
    return {
        "files": files,
        "without_a_title_of_their_own": files - titled,
        "refused_by_the_rules_for_svg": titled - len(drawn),
        "same_picture_as_another": len(drawn) - pictures,
    }


def examples(split: str, *, source: Path, image_size: int = NATIVE_SIDE) -> Iterator[Example]:
    """The drawings of `split`, by path."""
    for drawing in _drawings(source):
        if drawing.split == split:
            name = drawing.path.relative_to(source).as_posix()
            image = drawing.png if image_size <= NATIVE_SIDE else draw_svg(drawing.path.read_bytes(), image_size, name)
            extra: dict[str, str | bool] = {"group": drawing.group}
            yield Example(image=image, image_id=name, captions=drawing.captions, extra=extra)


@lru_cache(maxsize=1)
def _drawings(source: Path) -> tuple[Drawing, ...]:
    described = _titled(source)
    same: dict[bytes, list[Path]] = defaultdict(list)
    for path, png in _drawn(source):
        same[png].append(path)
    groups = _groups([{f"title:{described[path][0].casefold()}" for path in paths}
                      | {f"series:{_series(path)}" for path in paths} for paths in same.values()])  # fmt: skip
    found = []
    for (png, paths), group in zip(same.items(), groups):
        captions: dict[str, str] = {}
        for caption in (caption for path in paths for caption in described[path]):
            captions.setdefault(caption.casefold(), caption)
        split = "test" if _chance(group) < TEST_SHARE else "train"
        found.append(Drawing(paths[0], png, tuple(captions.values()), group, split))
    return tuple(sorted(found, key=lambda drawing: drawing.path))


@lru_cache(maxsize=1)
def _drawn(source: Path) -> tuple[tuple[Path, bytes], ...]:
    """The titled files that can be drawn, with their PNGs."""
    found = []
    for path in _titled(source):
        try:
            found.append((path, draw_svg(path.read_bytes(), NATIVE_SIDE, str(path))))
        except ImageError:  # counted by `left_out`
            continue
    return tuple(found)


@lru_cache(maxsize=1)
def _titled(source: Path) -> dict[Path, tuple[str, ...]]:
    """File → captions, the title first, of the files with a title of their own."""
    read = {path: found for path in _files(source) if (found := _metadata(path)) is not None}
    by_title = Counter(title.casefold() for title, _ in read.values())
    described: dict[Path, tuple[str, ...]] = {}
    for path, (title, keywords) in read.items():
        if by_title[title.casefold()] <= MOST_OF_A_TITLE:
            listed = ", ".join(keywords)
            described[path] = (title, f"{title}: {listed}", listed) if listed else (title,)
    return described


def _metadata(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """Title and keywords of a file; None where it has no title, or is no XML that may be read."""
    content = path.read_bytes()
    if len(content) > MOST_BYTES or b"<!ENTITY" in content:  # an entity could stand for gigabytes
        return None
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError):  # no XML, or an encoding that nobody knows
        return None
    title = _BY.sub("", " ".join((root.findtext(f".//{_DC}title") or "").split()), count=1)
    items = [item.text or "" for subject in root.iter(f"{_DC}subject") for item in subject.iter(f"{_RDF}li")]
    keywords = sorted({" ".join(text.replace("_", " ").split()) for text in items if not _NO_KEYWORD.fullmatch(text)})
    return (title, tuple(filter(None, keywords))) if title else None


@lru_cache(maxsize=1)
def _files(source: Path) -> tuple[Path, ...]:
    files = tuple(sorted(path for path in source.rglob("*.svg") if path.is_file() and not path.is_symlink()))
    if not files:
        raise Mt2stError(f"{source} holds no .svg file; give the folder of Open Clip Art's SVG files")
    return files


def _series(path: Path) -> str:
    """The file's name without its number: "bird_ann" of bird_ann_01.svg; the whole path where nothing would be left."""
    return _SERIES_NUMBER.sub("", path.stem.casefold()) or str(path)


def _groups(marks: list[set[str]]) -> list[str]:
    """The group of each picture, where pictures with a mark in common are one; it is called by its smallest mark."""
    names = sorted(set().union(*marks))
    place = {name: number for number, name in enumerate(names)}
    rows, columns = np.array(
        [(place[min(each)], place[mark]) for each in marks for mark in each], dtype=np.int64
    ).reshape(-1, 2).T  # fmt: skip
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(names), len(names)))
    components = connected_components(graph, directed=False)[1].tolist()
    smallest = {component: name for name, component in reversed(list(zip(names, components)))}
    return [smallest[components[place[min(each)]]] for each in marks]


def _chance(group: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(f"openclipart:{group}".encode()).digest()[:8], "big") / 2**64
