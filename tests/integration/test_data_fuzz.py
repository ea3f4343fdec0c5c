"""Every parser of outside data files under mutated inputs: rows or one clear line, never a crash, in bounded time and
memory.

The short version runs always; `python -m pytest -m chaos tests/integration/test_data_fuzz.py` runs 120,000 inputs (a
few minutes). Seeds are fixed, so a failure can be run again: it names parser and input number.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import resource
import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.adapters import wordnet
from data_prep.find import find_adapter
from data_prep.prepare import prepare
from data_prep.readers.idx import read_idx_images
from data_prep.readers.json_stream import iterate_records
from data_prep.readers.rows import parse_mapping
from data_prep.readers.shards import read_shard
from data_prep.readers.tables import read_json, read_table
from data_prep.svg import draw_svg
from mt2st.data.images import decode_image
from mt2st.data.splits import PreparedDataset
from mt2st.errors import Mt2stError
from tests.helpers.published_layouts import LAYOUTS, picture

SECONDS_AN_INPUT = 5.0
SHORT, LONG = 60, 10_000  # inputs a parser; there are twelve
TOKENS = [
    b"\0",
    b"\xff\xfe",
    b'"',
    b"{",
    b"}",
    b"[[[[",
    b",",
    b"\n",
    b"\t",
    b"../",
    b"9" * 400,
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"null",
    b"-1",
    b"=",
    b"'",
]


def image_bytes(kind: str) -> bytes:
    stream = io.BytesIO()
    picture(1).save(stream, kind)
    return stream.getvalue()


def tar_bytes(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in (("a.jpg", image_bytes("JPEG")), ("a.txt", b"caption"), ("b.json", b'{"caption": "x"}')):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def parquet_bytes() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"a": "x", "b": [1, 2]}, {"a": None, "b": []}]), stream)
    return stream.getvalue()


def exhaust(path: Path) -> None:
    for _ in read_table(path):
        pass


def open_toml(path: Path) -> None:
    (path.parent / "t.jsonl").write_text('{"i": "a cat"}\n', encoding="utf-8")  # what the undamaged mapping finds
    for _ in find_adapter(str(path)).examples("train"):
        pass


def read_mapping(path: Path) -> None:
    parse_mapping(path.read_bytes().decode("latin-1"))


def read_wordnet(path: Path) -> None:
    for number, line in enumerate(path.read_bytes().decode("latin-1").splitlines()):
        if line.strip() and not line.startswith("  "):
            wordnet._synset(line, f"{path}, line {number}")


def read_similarity(path: Path) -> None:
    for _ in find_adapter("word_similarity").examples("test", source=path):  # type: ignore[call-arg]
        pass


def read_records(path: Path) -> None:
    for _ in iterate_records(path, "records"):
        pass


def read_image(path: Path) -> None:
    decode_image(path, 8, max_pixels=1 << 20)


SVG_HEAD = b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="8" viewBox="0 0 32 16">'
SVGS = [
    SVG_HEAD + b'<path d="M1 2 l3 4 q1 1 2 2z" stroke="red" stroke-dasharray="1 2"/></svg>',
    SVG_HEAD + b'<defs><linearGradient id="g"><stop offset=".5" stop-color="#123"/></linearGradient><g id="b">'
    b'<circle r="4" fill="url(#g)"/></g></defs><use href="#b" x="8" transform="scale(2) rotate(9)"/></svg>',
    SVG_HEAD + b'<filter id="f"><feGaussianBlur stdDeviation="1"/></filter><style>rect {fill: blue}</style>'
    b'<mask id="m"><rect width="8" height="8"/></mask>'
    b'<rect width="9" height="9" filter="url(#f)" mask="url(#m)"/></svg>',
]


def draw(path: Path) -> None:
    draw_svg(path.read_bytes(), 16, str(path))


Parser = tuple[str, list[bytes], Callable[[Path], object]]
PARSERS: list[Parser] = [
    ("x.jsonl", [b'{"image": "a.png", "q": "what?", "n": [1, 2.5, null]}\n{"a": {"b": "\\u00e9"}}\n'], exhaust),
    ("x.csv", [b'file_name,caption\na.png,"quoted, ""text"""\nb.png,plain\n', b"a\tb\n1\t2\n"], exhaust),
    ("x.parquet", [parquet_bytes()], exhaust),
    (
        "x.toml",
        [
            b'name = "x"\nlicence = "CC0-1.0"\n[splits]\ntrain = "t.jsonl"\n[map]\ncaptions = "i"\n',
            b'data = "hf.csv"\n',
        ],
        open_toml,
    ),
    ("x.tar", [tar_bytes("w"), tar_bytes("w:gz")], lambda path: list(read_shard(path))),
    (
        "x.png",
        [image_bytes(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")],
        read_image,
    ),
    ("x.json", [b'{"info": {"a": [1]}, "records": [{"x": 1}, [2], "three", 4.5]}'], read_records),
    ("y.json", [json.dumps({"a": [1, {"b": None}]}).encode()], read_json),
    ("x.gz", [gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + bytes(8), mtime=0)], read_idx_images),
    ("x.map", [b"image=img,question=q,answers=a"], read_mapping),
    (
        "x.wn",
        [b'00001740 03 n 02 entity 0 thing 1 002 @ 00001930 n 0000 ~ 00002137 n 0000 | that which is; "an example"'],
        read_wordnet,
    ),
    ("x.svg", SVGS, draw),
    ("x.txt", [b"tiger\tcat\t7.35\ncar automobile 8.94\n"], read_similarity),
]


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> None:
    """Lets a long test run only when `-m chaos` was asked for."""
    if "chaos" not in (request.config.option.markexpr or ""):
        pytest.skip("long; runs with -m chaos")


def mutated(chance: random.Random, seed: bytes) -> bytes:
    content = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(content) + 1)
        kind = chance.randrange(6)
        if kind == 0 and content:
            content[at % len(content)] ^= 1 << chance.randrange(8)
        elif kind == 1 and content:
            content[at % len(content)] = chance.randrange(256)
        elif kind == 2:
            del content[at : at + chance.choice((1, 2, 8, 64))]
        elif kind == 3:
            content[at:at] = chance.choice(TOKENS)
        elif kind == 4:
            start = chance.randrange(len(content) + 1)
            content[at:at] = content[start : start + chance.choice((1, 4, 16, 64))]
        else:
            del content[at:]
    return bytes(content)


def fuzz(folder: Path, parser: Parser, inputs: int, seed: int) -> Counter[str]:
    """Feed a parser mutated inputs; returns how many were accepted and refused."""
    name, seeds, read = parser
    chance = random.Random(f"{seed}:{name}")
    path, outcomes = folder / name, Counter[str]()
    for number in range(inputs):
        content = mutated(chance, chance.choice(seeds))
        path.write_bytes(content)
        started = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of odd metadata
                read(path)
            outcomes["accepted"] += 1
        except Mt2stError as error:
            assert "\n" not in str(error), (name, number, str(error))  # noqa: PT017
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(
                f"parser of {name}, input {number} ({content[:200]!r}): {type(error).__name__}: {error}"
            ) from error
        assert time.process_time() - started < SECONDS_AN_INPUT, (name, number)
    return outcomes


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser[0])
def test_mutated_files_are_read_or_refused(tmp_path: Path, parser: Parser) -> None:
    outcomes = fuzz(tmp_path, parser, SHORT, seed=0)
    assert outcomes["refused"], "the mutations are too tame to test anything"


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("chaos")
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser[0])
def test_ten_thousand_mutated_files_are_read_or_refused(tmp_path: Path, parser: Parser) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = fuzz(tmp_path, parser, LONG, seed=1)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{parser[0]}: {dict(outcomes)}, peak memory +{grown_mb:.0f} MB")
    assert outcomes["refused"]
    assert grown_mb < 300


def test_every_changed_byte_of_a_prepared_folder_is_found(tmp_path: Path) -> None:
    damage(tmp_path, 60)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("chaos")
def test_five_thousand_changes_of_a_prepared_folder_are_found(tmp_path: Path) -> None:
    damage(tmp_path, 5000)


def damage(tmp_path: Path, inputs: int) -> None:
    """Any changed, missing or additional byte of any file: a full verification refuses the folder."""
    write = LAYOUTS["easy_vqa"]
    assert write
    write(tmp_path / "source")
    folder = prepare("easy_vqa", source=tmp_path / "source", out=tmp_path / "out", image_size=4, workers=0)
    chance = random.Random(3)
    for number in range(inputs):
        path = chance.choice(sorted(folder.iterdir()))
        good = path.read_bytes()
        bad = mutated(chance, good)
        same = bad == good or (path.suffix == ".json" and _same_json(bad, good))
        if same:
            continue
        path.write_bytes(bad)
        with pytest.raises(Mt2stError, match=path.name):
            PreparedDataset.open(folder, verify="full")
        path.write_bytes(good)
        assert PreparedDataset.open(folder, verify="full").card.name == "easy_vqa", number


def _same_json(one: bytes, other: bytes) -> bool:
    """Whether two texts are the same JSON value: a changed blank is no damage."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False
