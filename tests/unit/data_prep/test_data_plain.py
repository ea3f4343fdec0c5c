"""Data that need no code: tables by mapping, image folders, caption files, tar shards, Hub-format folders.

And what is refused.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.find import find_adapter
from data_prep.prepare import prepare
from data_prep.readers import shards as tar_shards
from data_prep.readers.rows import example_from_row, parse_mapping
from data_prep.readers.shards import read_shard
from data_prep.readers.tables import read_table
from mt2st.data.card import Answer, Example
from mt2st.data.splits import PreparedDataset, PreparedSplit
from mt2st.errors import Mt2stError


def png(value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (5, 5), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def prepared(tmp_path: Path, name: str, split: str = "train", **mapping: str) -> PreparedSplit:
    return PreparedDataset.open(prepare(name, out=tmp_path / "out", image_size=4, mapping=mapping, workers=0)).split(
        split
    )


ROWS = [
    {"img": "a.png", "q": "what?", "a": "yes"},
    {"img": "b.png", "q": "why?", "a": "no"},
    {"img": "a.png", "q": "when?", "a": "now"},
]
MAP = {"image": "img", "question": "q", "answer": "a"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_local_tables_by_mapping(tmp_path: Path, kind: str) -> None:
    for number, name in enumerate("ab"):
        (tmp_path / f"{name}.png").write_bytes(png(number))
    path = tmp_path / f"My Set.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        mark = "," if kind == "csv" else "\t"
        path.write_text("\n".join([mark.join(ROWS[0]), *(mark.join(row.values()) for row in ROWS)]))
    split = prepared(tmp_path, str(path), **MAP)
    assert split.dataset.card.name == "my_set"
    assert split.dataset.card.task == "vqa"
    assert split.num_images == 2
    assert split.question_texts() == ["what?", "why?", "when?"]
    assert split.question_images().tolist() == [0, 1, 0]
    assert split.answers(1) == (Answer("no", "0"),)


def test_parquet_with_embedded_images_in_the_hubs_layout(tmp_path: Path) -> None:
    folder = tmp_path / "pets" / "data"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        rows = [{"image": {"bytes": png(n % 2), "path": None}, "caption": [f"{split} {n}", "x"]} for n in range(4)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
    split = prepared(tmp_path, str(tmp_path / "pets"), "validation")
    assert split.num_images == 2, "equal bytes are one image"
    assert split.caption_texts()[:2] == ["validation 0", "x"]
    assert split.caption_images().tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, keeping what it caches in the test's own folder."""
    package = pytest.importorskip("datasets")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return package


def test_a_hub_dataset_by_mapping(tmp_path: Path, datasets: Any) -> None:
    folder = tmp_path / "hub" / "pets" / "data"
    folder.mkdir(parents=True)
    features = datasets.Features(
        {"img": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"]), "words": datasets.Value("string")}
    )
    rows = {"img": [{"bytes": png(n), "path": None} for n in range(3)], "kind": [0, 1, 1], "words": ["a", "b", "c"]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train-00000-of-00001.parquet")
    mapping = {"image": "img", "label": "kind", "captions": "words"}
    streamed = find_adapter(f"hf:{folder.parent}", mapping).examples("train", streaming="yes")  # type: ignore[call-arg]
    assert [example.captions for example in streamed] == [("a",), ("b",), ("c",)]
    with pytest.raises(Mt2stError, match="option value 'maybe' must be yes or no"):
        list(find_adapter(f"hf:{folder.parent}", mapping).examples("train", streaming="maybe"))  # type: ignore[call-arg]
    split = prepared(tmp_path, f"hf:{folder.parent}@abc123", image="img", label="kind", caption="words")
    assert split.labels() == ["cat", "dog", "dog"]
    assert split.caption_texts() == ["a", "b", "c"]
    assert split.pixels([2])[0, 0, 0].tolist() == [2, 0, 0]
    assert split.dataset.card.revision == "abc123"
    with pytest.raises(Mt2stError, match="has columns img, kind, words; say which is which with --map"):
        prepared(tmp_path, f"hf:{folder.parent}")


def hub_with_configurations(folder: Path, default: str = "") -> Path:
    """A repository of two configurations as the Hub lays them out: a README.md whose head lists their files."""
    head = "configs:\n"
    for name in ("english", "german"):
        (folder / name).mkdir(parents=True)
        head += f"- config_name: {name}\n" + ("  default: true\n" if name == default else "") + "  data_files:\n"
        for split in ("train", "test"):
            rows = [{"image": {"bytes": png(n), "path": None}, "caption": f"{name} {split} {n}"} for n in range(2)]
            pq.write_table(pa.Table.from_pylist(rows), folder / name / f"{split}-00000-of-00001.parquet")
            head += f"  - split: {split}\n    path: {name}/{split}-*\n"
    (folder / "README.md").write_text(f"---\n{head}---\n# Pets\n")
    return folder


@pytest.mark.usefixtures("datasets")
def test_a_hub_dataset_of_several_configurations(tmp_path: Path) -> None:
    folder = hub_with_configurations(tmp_path / "hub" / "pets")
    for name in ("english", "german"):
        split = prepared(tmp_path, f"hf:{folder}:{name}@abc123", "test")
        assert split.caption_texts() == [f"{name} test 0", f"{name} test 1"]
        assert split.dataset.card.name == f"pets-{name}"
        assert split.dataset.card.revision == "abc123"
    with pytest.raises(
        Mt2stError, match=r"has 2 configurations: english, german; name one, such as hf:.*pets:english@abc123$"
    ):
        prepared(tmp_path, f"hf:{folder}@abc123")
    with pytest.raises(
        Mt2stError, match=r"unknown configuration of Hub dataset .*pets' 'germn'; did you mean 'german'"
    ):
        prepared(tmp_path, f"hf:{folder}:germn")
    (tmp_path / "pets.toml").write_text(f'data = "hf:{folder}:german"\n')
    assert prepared(tmp_path, str(tmp_path / "pets.toml")).caption_texts() == ["german train 0", "german train 1"]
    (tmp_path / "vague.toml").write_text(f'data = "hf:{folder}"\n[splits]\ntrain = "train"\n')
    with pytest.raises(Mt2stError, match="has 2 configurations: english, german; name one"):
        prepared(tmp_path, str(tmp_path / "vague.toml"))


@pytest.mark.usefixtures("datasets")
def test_the_default_configuration_needs_no_name(tmp_path: Path) -> None:
    folder = hub_with_configurations(tmp_path / "hub" / "pets", default="german")
    assert prepared(tmp_path, f"hf:{folder}").caption_texts() == ["german train 0", "german train 1"]
    with pytest.raises(Mt2stError, match=r"Hub dataset .*pets' cannot be loaded \(.*\); check name, split and network"):
        prepared(tmp_path, f"hf:{folder.parent / 'nowhere' / 'pets'}")


def test_a_toml_file_says_everything(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        (tmp_path / f"{name}.png").write_bytes(png(number))
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    (tmp_path / "pets.toml").write_text("""
name = "my_pets"
title = "My pets"
licence = "CC0-1.0"
[splits]
train = "train.jsonl"
test = ["test.jsonl"]
[map]
image = "img"
question = "q"
answers = "a"
""")
    split = prepared(tmp_path, str(tmp_path / "pets.toml"), "test")
    assert (split.dataset.card.name, split.dataset.card.licence) == ("my_pets", "CC0-1.0")
    assert split.num_questions == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "not valid TOML"),
        ("nam = 'x'\n", "did you mean 'name'"),
        ("name = 'x'\n", "says neither"),
        ("[splits]\ntrain = '../secret.jsonl'\n", "leaves the folder"),
        ("[splits]\ntrain = 3\n", "give a file name"),
        ("data = 'nowhere.jsonl'\n", "does not exist"),
        ("[splits]\ntrain = 'x.jsonl'\n[map]\nimge = 'x'\n", "did you mean 'image'"),
        ("licence = 3\n[splits]\ntrain = 'x.jsonl'\n", "write a text"),
        ("map = 3\n[splits]\ntrain = 'x.jsonl'\n", "must be tables"),
    ],
)
def test_bad_toml_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pets.toml").write_text(text)
    with pytest.raises(Mt2stError, match=message):
        find_adapter(str(tmp_path / "pets.toml"))


def test_an_image_folder_with_metadata(tmp_path: Path) -> None:
    for split, kind in (("train", "jsonl"), ("test", "csv")):
        folder = tmp_path / "birds" / split
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "x.png").write_bytes(png(3))
        (folder / "y.png").write_bytes(png(4))
        rows = [{"file_name": "deep/x.png", "caption": "a wren"}, {"file_name": "y.png", "caption": "a tit"}]
        if kind == "jsonl":
            (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        else:
            (folder / "metadata.csv").write_text("file_name,caption\ndeep/x.png,a wren\ny.png,a tit\n")
    for name in ("train", "test"):
        split = prepared(tmp_path, str(tmp_path / "birds"), name)
        assert split.image_ids() == ["deep/x.png", "y.png"]
        assert split.caption_texts() == ["a wren", "a tit"]
        assert split.pixels([1])[0, 0, 0, 0] == 4


def test_open_clips_caption_file(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png())
    (tmp_path / "cc.tsv").write_text("filepath\ttitle\nx.png\t\"quoted, and' odd\n")
    split = prepared(tmp_path, str(tmp_path / "cc.tsv"))
    assert split.caption_texts() == ["\"quoted, and' odd"]


# -- mapping and rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image", "is not FIELD=COLUMN"),
        ("image=", "is not FIELD=COLUMN"),
        ("imag=x", "did you mean 'image'"),
        ("image=x,image=y", "names a field twice"),
        ("caption=x,captions=y", "names field 'captions' twice"),
    ],
)
def test_bad_mappings_are_named(text: str, message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        parse_mapping(text)


def row_example(value: Any, field: str, **more: Any) -> Example:
    base = {"t": "text", "v": value}
    return example_from_row(base, {"captions": "t", field: "v"}, "file, record 7", 7, **more)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("yes", (Answer("yes", "0"),)),
        (["yes", "no"], (Answer("yes", "0"), Answer("no", "1"))),
        ([{"answer": "yes", "answer_id": 3}], (Answer("yes", "3"),)),
        ({"answer": ["yes"]}, (Answer("yes", "0"),)),
        (5, (Answer("5", "0"),)),
        (None, ()),
    ],
)
def test_answers_in_their_usual_forms(value: object, expected: tuple[Answer, ...]) -> None:
    assert row_example(value, "answers").answers == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("answers", [None]),
        ("answers", [{"text_": "x"}]),
        ("answers", {"x": 1}),
        ("choices", [1, 2]),
        ("question", 3),
        ("label", 2.5),
        ("label", True),
        ("image", 3.5),
        ("image", "pets/cat.png"),
    ],
)
def test_values_of_the_wrong_kind_name_record_and_column(field: str, value: object) -> None:
    with pytest.raises(Mt2stError, match=r"file, record 7, column 'v'"):
        row_example(value, field)


def test_labels_by_number_need_a_declared_class() -> None:
    assert row_example(1, "label", names=["cat", "dog"]).label == "dog"
    assert row_example(1, "label").label == "1"
    with pytest.raises(Mt2stError, match="label 2 is outside the 2 declared classes"):
        row_example(2, "label", names=["cat", "dog"])


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "link/x.png", "a\0b", ""])
def test_image_paths_may_not_leave_the_folder(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside").mkdir()
    (inside / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(Mt2stError, match=r"leaves the folder|is no file name"):
        row_example(name, "image", folder=inside)


def test_unknown_columns_get_suggestions(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"imge": "x.png", "caption": "c"}')
    with pytest.raises(Mt2stError, match=r"unknown column \(for image\) in .*record 0.*did you mean 'imge'"):
        prepared(tmp_path, str(tmp_path / "x.jsonl"), image="image")
    (tmp_path / "y.jsonl").write_text('{"a": 1}')
    with pytest.raises(Mt2stError, match="has columns a; say which is which"):
        prepared(tmp_path, str(tmp_path / "y.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not valid JSON"),
        ("x.jsonl", b"[1]\n", "line 1 holds list"),
        ("x.jsonl", b'{"a": "\xff"}', "not UTF-8"),
        ("x.csv", b"a,b\n1,2\n3\n", "line 3: 1 fields, but the header has 2"),
        ("x.csv", b"a,a\n1,2\n", "distinct column names"),
        ("x.csv", b"", "expected a header"),
        ("x.csv", b"a,b\n\xff,1\n", "not UTF-8"),
        ("x.csv", b"a\n" + b"x" * 200_000, "field larger than field limit"),
        ("x.parquet", b"PAR1 no parquet", "not a readable parquet file"),
        ("x.txt", b"", "is no table we read"),
    ],
)
def test_broken_tables_name_the_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Mt2stError, match=message):
        list(read_table(tmp_path / name))


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(Mt2stError, match="is no dataset folder"):
        find_adapter(str(tmp_path / "x"))
    with pytest.raises(Mt2stError, match="does not exist"):
        find_adapter(str(tmp_path / "nowhere.jsonl"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["jsonl", "csv", "tsv", "parquet", "toml", "tar"]), st.binary(max_size=400))
def test_random_files_of_any_kind_give_rows_or_a_clear_error(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / f"random.{kind}"
    path.write_bytes(content)
    try:
        adapter = find_adapter(str(path))
        for _ in adapter.examples("train"):
            pass
    except Mt2stError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert "random" in str(error)  # noqa: PT017


# -- tar shards --------------------------------------------------------------------------------------------------------


def shard(path: Path, members: list[tuple[str, bytes]], kind: str = "w") -> Path:
    with tarfile.open(path, kind) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_shards_give_samples(tmp_path: Path, kind: str) -> None:
    (tmp_path / "cc").mkdir()
    for number in range(2):
        members = [
            (f"{number}/a.jpg", png(1)),
            (f"{number}/a.txt", b"a caption"),
            (f"{number}/b.png", png(2)),
            (
                f"{number}/b.json",
                json.dumps(
                    {"caption": "from json", "question": "q?", "answers": ["yes"], "question_id": f"{number}b"}
                ).encode(),
            ),
        ]
        shard(tmp_path / "cc" / f"train-{number:05}.tar", members, kind)
    split = prepared(tmp_path, str(tmp_path / "cc"))
    assert split.image_ids() == ["0/a", "0/b", "1/a", "1/b"]
    assert split.caption_texts() == ["a caption", "from json"] * 2
    assert split.answer_texts() == [("yes",)] * 2


def special(path: Path, kind: bytes, name: str = "a.jpg", target: str = "/etc/passwd") -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a device"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        list(read_shard(special(tmp_path / "x.tar", kind)))


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "a\\..\\x.jpg"])
def test_names_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Mt2stError, match="leaves the archive"):
        list(read_shard(shard(tmp_path / "x.tar", [(name, png())])))


def test_oversized_torn_and_odd_shards_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = shard(tmp_path / "good.tar", [("a.jpg", png()), ("a.txt", b"c")])
    content = good.read_bytes()
    (tmp_path / "torn.tar").write_bytes(content[:600])
    with pytest.raises(Mt2stError, match=r"torn\.tar"):
        list(read_shard(tmp_path / "torn.tar"))
    with pytest.raises(Mt2stError, match="occurs twice"):
        list(read_shard(shard(tmp_path / "twice.tar", [("a.jpg", png()), ("a.jpg", png())])))
    with pytest.raises(Mt2stError, match=r"member \.json is not valid JSON"):
        list(read_shard(shard(tmp_path / "json.tar", [("a.jpg", png()), ("a.json", b"{")])))
    with pytest.raises(Mt2stError, match=r"member \.txt is not UTF-8"):
        list(read_shard(shard(tmp_path / "utf.tar", [("a.jpg", png()), ("a.txt", b"\xff")])))
    monkeypatch.setattr(tar_shards, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(Mt2stError, match="above the limit of 10"):
        list(read_shard(good))


def test_a_compression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = 300 << 20
        archive.addfile(info, ZeroStream(info.size))
    assert path.stat().st_size < 3 << 20
    with pytest.raises(Mt2stError, match="above the limit"):
        list(read_shard(path))


class ZeroStream(io.RawIOBase):
    """`size` zero bytes."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, count: int = -1) -> bytes:
        count = min(self.left, count if count >= 0 else self.left)
        self.left -= count
        return bytes(count)
