"""Malformed annotations: every failure names file, record and field, and nothing half-prepared is ever loadable."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.adapters._published import find_file, get_field
from data_prep.find import find_adapter
from data_prep.prepare import prepare
from data_prep.readers import json_stream
from data_prep.readers.idx import read_idx_images, read_idx_labels
from data_prep.readers.json_stream import iterate_records
from mt2st.data.splits import PreparedDataset
from mt2st.errors import Mt2stError
from tests.helpers.published_layouts import LAYOUTS

WITH_JSON = sorted(
    set(LAYOUTS)
    - {
        "digits",
        "openclipart",
        "openmoji",
        "openmoji_classes",
        "scene_captions",
        "scene_questions",
        "wordnet",
        "word_similarity",
        "fashion_mnist",
        "conceptual_captions",
        "conceptual_captions/shards",
    }
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, str]]]:
    """Adapter → its miniature's folder and options; the folders are read-only models for copies."""
    found = {}
    for name in WITH_JSON:
        write = LAYOUTS[name]
        assert write
        folder = tmp_path_factory.mktemp(name)
        found[name] = (folder, write(folder))
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, child in inner for found in places(child, (*path, key))]


def changed(value: Any, path: tuple[Any, ...], new: Any, delete: bool) -> Any:
    """`value` with what lies at `path` replaced or deleted."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and delete:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(value[path[0]], path[1:], new, delete)
    return copy


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_one_broken_value_is_named_and_nothing_is_published(
    miniatures: dict[str, tuple[Path, dict[str, str]]], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(WITH_JSON))
    model, options = miniatures[name]
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place) / "source", Path(place) / "out"
        shutil.copytree(model, source, symlinks=True)
        path = data.draw(st.sampled_from(sorted(source.rglob("*.json"))))
        document = json.loads(path.read_text())
        where = data.draw(st.sampled_from(places(document)))
        delete, new = data.draw(st.booleans()), data.draw(json_values)
        path.write_text(json.dumps(changed(document, where, new, delete)))
        try:
            folder = prepare(find_adapter(name), source=source, options=options, out=out, image_size=4, workers=0)
        except Mt2stError as error:
            message = str(error)
            assert "\n" not in message
            # An image that is named but not there, an id used twice or a split left empty shows only when records are
            # put together.
            together = (
                "missing from disk",
                "occurs twice",
                "is empty",
                "instead of the",
                "cannot be stored",
                "question_id is empty",
            )
            assert path.name in message or any(text in message for text in together), (where, message)
            assert not [entry for entry in out.glob("*") if not entry.name.startswith(".")]
            for partial in out.glob(".*.partial"):
                with pytest.raises(Mt2stError):
                    PreparedDataset.open(partial)
        else:
            PreparedDataset.open(folder, verify="full")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_or_overwritten_file_is_named(
    miniatures: dict[str, tuple[Path, dict[str, str]]], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(WITH_JSON))
    model, options = miniatures[name]
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place) / "source", Path(place) / "out"
        shutil.copytree(model, source)
        path = data.draw(st.sampled_from(sorted(source.rglob("*.json"))))
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            del content[at:]
        else:
            content[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
        path.write_bytes(content)
        try:
            prepare(find_adapter(name), source=source, options=options, out=out, image_size=4, workers=0)
        except Mt2stError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert not [entry for entry in out.glob("*") if not entry.name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "file", "path", "new", "message"),
    [
        (
            "vqav2",
            "v2_OpenEndedQuestions_mscoco_train2014_questions.json",
            ("questions", 3, "question"),
            7,
            r"record 3, field 'question' is '7'",
        ),
        (
            "vqav2",
            "v2_mscoco_train2014_annotations.json",
            ("annotations", 2, "answers", 4),
            {"x": 1},
            r"record 2 has no field 'answer'",
        ),
        ("vqav2", "v2_mscoco_train2014_annotations.json", ("annotations",), [], "has no annotation in"),
        ("vqav2", "v2_mscoco_train2014_complementary_pairs.json", (1,), [1], "record 1: '.1.' is not a pair"),
        (
            "aokvqa",
            "aokvqa_v1p0_train.json",
            (2, "correct_choice_idx"),
            4,
            r"record 2, field 'correct_choice_idx' is 4",
        ),
        ("gqa", "train_balanced_questions.json", ("001", "imageId"), "../secret", "leaves the folder"),
        (
            "clevr",
            "questions/CLEVR_val_questions.json",
            ("questions", 1, "program"),
            [{}],
            "program has no field 'type'",
        ),
        ("slake", "train.json", (4,), "text", r"record 4 is 'text', not an object"),
        ("coco_captions", "dataset_coco.json", ("images", 5, "sentences", 1), None, "image 5 is 'None', not an object"),
        ("vizwiz", "Annotations/train.json", (), {"a": 1}, "record a is '1', not an object"),
    ],
)
def test_messages_name_file_record_and_field(
    tmp_path: Path, name: str, file: str, path: tuple[Any, ...], new: Any, message: str
) -> None:
    write = LAYOUTS[name]
    assert write
    options = write(tmp_path / "source")
    target = tmp_path / "source" / file
    target.write_text(json.dumps(changed(json.loads(target.read_text()), path, new, False)))
    with pytest.raises(Mt2stError, match=message):
        prepare(
            find_adapter(name),
            source=tmp_path / "source",
            options=options,
            out=tmp_path / "out",
            image_size=4,
            workers=0,
        )


def test_questions_without_their_annotations_are_refused(tmp_path: Path) -> None:
    write = LAYOUTS["vqav2"]
    assert write
    write(tmp_path / "source")
    (tmp_path / "source" / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(Mt2stError, match=r"holds no v2_mscoco_val2014_annotations\.json"):
        prepare("vqav2", source=tmp_path / "source", out=tmp_path / "out", image_size=4, workers=0)


def test_annotations_in_another_order_than_questions_are_joined(tmp_path: Path) -> None:
    write = LAYOUTS["okvqa"]
    assert write
    write(tmp_path / "source")
    path = tmp_path / "source" / "mscoco_train2014_annotations.json"
    document = json.loads(path.read_text())
    straight = list(find_adapter("okvqa").examples("train", source=tmp_path / "source"))  # type: ignore[call-arg]
    document["annotations"].reverse()
    path.write_text(json.dumps(document))
    assert list(find_adapter("okvqa").examples("train", source=tmp_path / "source")) == straight  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("option", "name"),
    [({"other_counts": "maybe"}, "flickr30k"), ({"language": "fr"}, "slake"), ({"questions": "some"}, "gqa")],
)
def test_option_values_are_checked(tmp_path: Path, option: dict[str, str], name: str) -> None:
    write = LAYOUTS[name]
    assert write
    write(tmp_path)
    with pytest.raises(Mt2stError, match=r"must be yes or no|unknown option"):
        list(find_adapter(name).examples("train", source=tmp_path, **option))  # type: ignore[call-arg]


# -- the formats underneath --------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(json_values, max_size=6), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
@example([-0.0, 10.5, 1e-7], 2, None, False)  # numbers cut by a block's end where the first part is a number as well
@example([-0.0, 10.5, 1e-7], 3, 1, True)
def test_streaming_json_equals_loading_it(values: list[Any], block: int, indent: int | None, inside: bool) -> None:
    document: Any = {"info": {"x": [1, {"y": "]}"}]}, "records": values, "after": 1} if inside else values
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        patch.setattr(json_stream, "_BLOCK_CHARACTERS", block)
        path = Path(place) / "x.json"
        path.write_text(json.dumps(document, indent=indent, ensure_ascii=block % 2 == 0), encoding="utf-8")
        found = list(iterate_records(path, "records" if inside else None))
    assert [name for name, _ in found] == [str(n) for n in range(len(values))]
    assert [value for _, value in found] == values


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("", None, "holds 'nothing'"),
        ("3", None, "holds '3'"),
        ("[1, 2", None, "the file ends early"),
        ("[1 2]", None, "expected ','"),
        ('[1, {"a": }]', None, "record 1: not valid JSON"),
        ('{"a": 1}', "records", "has no 'records'"),
        ('{"records": 3}', "records", "holds '3'"),
        ("[" * 100_000, None, "not valid JSON"),
        ("\ufeff[1]", None, None),
    ],
)
def test_broken_json_is_named(tmp_path: Path, text: str, key: str | None, message: str | None) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    if message is None:
        assert list(iterate_records(path, key)) == [("0", 1)]
        return
    with pytest.raises(Mt2stError, match=message) as caught:
        list(iterate_records(path, key))
    assert "x.json" in str(caught.value)


@pytest.mark.parametrize("text", ['["\\ud83d"]', "[12345678901234567890123]", "[1e400, -Infinity]"])
def test_what_python_writes_is_read_as_python_reads_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert [value for _, value in iterate_records(tmp_path / "x.json")] == json.loads(text)


def test_a_huge_file_is_streamed_in_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "big.json"
    record = json.dumps({"question": "x" * 1000, "id": 5})
    with path.open("w") as stream:
        stream.write('{"info": {}, "questions": [' + ", ".join([record] * 50_000) + "]}")
    tracemalloc.start()
    count = sum(1 for _ in iterate_records(path, "questions"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 16 << 20, f"{peak >> 20} MB for a file of {path.stat().st_size >> 20} MB"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file"),
        (struct.pack(">II", 0x00000801, 4), "is no IDX file"),
        (struct.pack(">IIII", 0x00000803, 2, 2, 2) + bytes(7), "declares 8 bytes and holds 7"),
        (struct.pack(">IIII", 0x00000803, 2, 2, 2) + bytes(9), "holds more"),
        (struct.pack(">IIII", 0x00000803, 2**31, 2**20, 2**20), "more than"),
    ],
)
def test_broken_idx_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Mt2stError, match=message):
        read_idx_images(tmp_path / "x")
    (tmp_path / "y.gz").write_bytes(b"no gzip")
    with pytest.raises(Mt2stError, match="cannot be unpacked"):
        read_idx_labels(tmp_path / "y.gz")


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("data.noun", "00000099 99 n 01 word 0 000 | a gloss", "lexicographer file 99 is outside the 45"),
        ("data.noun", "00000099 05 n 02 word 0 000 | a gloss", "is not in the published format"),
        ("data.verb", "00000099 38 v 01 word 0 000 a gloss", "is not in the published format"),
        ("data.noun", f"00000099 05 n 01 word 0 {'9' * 200} | a gloss", "is not in the published format"),
        ("data.adj", "hello", "is not in the published format"),
        ("data.adv", "00000099 02 x 01 word 0 000 | a gloss", "is not in the published format"),
    ],
)
def test_the_first_bad_line_of_wordnet_is_named(tmp_path: Path, file: str, line: str, message: str) -> None:
    write = LAYOUTS["wordnet"]
    assert write
    write(tmp_path)
    with (tmp_path / file).open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(Mt2stError, match=rf"{file}, line 14.*{message}"):
        list(find_adapter("wordnet").examples("train", source=tmp_path))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "text", ["a b\n", "a b c\n1 2 3\na b c\n", "a b 1 2\na b 1 2\n", "a b nan\na b nan\n", "", "word1 word2 score\n"]
)
def test_bad_similarity_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(Mt2stError, match=r"pairs\.txt"):
        list(find_adapter("word_similarity").examples("test", source=tmp_path))  # type: ignore[call-arg]


def test_helpers_name_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="holds no a or b"):
        find_file(tmp_path, "a", "b")
    with pytest.raises(Mt2stError, match="has no field 'x'; it has y"):
        get_field({"y": 1}, "x", int, "record 1")
    with pytest.raises(Mt2stError, match="field 'x' is 'True'; expected int"):
        get_field({"x": True}, "x", int, "record 1")
