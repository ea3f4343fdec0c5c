"""Atomic files under crashes and errors between each two operations, and seals under every kind of damage."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt2st.errors import Mt2stError, check_range, unknown_name
from mt2st.files import (
    PARTIAL_SUFFIX,
    atomic_path,
    canonical_json,
    content_hash,
    file_hash,
    read_sealed_json,
    write_bytes,
    write_sealed_json,
    write_text,
)

OPERATIONS = ("open", "close", "fsync", "replace", "unlink")


class PowerLoss(BaseException):
    """The process is gone: nothing after this runs."""


class Faults:
    """Counts the operations of a write, and makes one of them fail, or it and all after it (a crash)."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException, *, after: bool, crash: bool
    ) -> None:
        self.done = 0
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name), at, error, after, crash))

    def _wrap(self, real, at: int, error: BaseException, after: bool, crash: bool):
        def operation(*args, **kwargs):
            number, self.done = self.done, self.done + 1
            if crash and number > at:
                raise error  # a dead process cleans nothing up
            if number == at:
                if after:
                    real(*args, **kwargs)
                raise error
            return real(*args, **kwargs)

        return operation


def count_operations(folder: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, -1, PowerLoss(), after=False, crash=False)
        write_bytes(folder / "counted", b"x")
    return faults.done


@pytest.mark.parametrize("after", [False, True], ids=["before the operation", "after the operation"])
@pytest.mark.parametrize("old", [None, b"the old content"])
def test_a_crash_between_any_two_operations_leaves_the_old_file_or_the_new_one(
    tmp_path, old: bytes | None, after: bool
) -> None:
    total = count_operations(tmp_path)
    assert total >= 8, "create, close, sync file (3), rename, sync folder (3)"
    outcomes = set()
    for at in range(total):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        path = folder / "file"
        if old is not None:
            path.write_bytes(old)
        with pytest.MonkeyPatch.context() as patch:
            Faults(patch, at, PowerLoss(), after=after, crash=True)
            with pytest.raises(PowerLoss):
                write_bytes(path, b"the new content")
        found = path.read_bytes() if path.exists() else None
        outcomes.add(found)
        assert found in (old, b"the new content")
        assert all(entry.name.endswith(PARTIAL_SUFFIX) for entry in folder.iterdir() if entry != path)
        write_bytes(path, b"the new content")  # a plain re-run succeeds, whatever was left
        assert path.read_bytes() == b"the new content"
    assert outcomes == {old, b"the new content"}, "the test must have seen both sides of the rename"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_an_error_of_any_operation_is_raised_and_leaves_nothing_behind(tmp_path: Path, code: int) -> None:
    for at in range(count_operations(tmp_path)):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        path = folder / "file"
        path.write_bytes(b"old")
        with pytest.MonkeyPatch.context() as patch:
            Faults(patch, at, OSError(code, os.strerror(code), str(path)), after=False, crash=False)
            with pytest.raises(OSError) as caught:
                write_bytes(path, b"new")
        assert caught.value.errno == code
        assert path.read_bytes() in (b"old", b"new")
        assert [entry.name for entry in folder.iterdir()] == ["file"], f"operation {at}"


def test_the_content_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, _real=real, _name=name: (log.append(_name), _real(*args))[1])
    write_bytes(tmp_path / "file", b"x")
    assert log == ["fsync", "replace", "fsync"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_writers_at_once_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_path(path) as one, atomic_path(path) as other:
        assert one != other
        assert one.parent == other.parent == tmp_path
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"


def test_folders_are_made_and_files_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    before = os.umask(0o022)
    try:
        write_text(path, "für alle")
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == "für alle"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


# -- JSON and seals ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text(max_size=8).filter(lambda key: key != "sha256"), JSON, max_size=5)


@settings(max_examples=100, deadline=None)
@given(OBJECTS)
def test_sealed_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: dict) -> None:
    path = tmp_path_factory.mktemp("seal") / "file.json"
    write_sealed_json(path, value)
    assert read_sealed_json(path, "cure") == value


@given(OBJECTS)
def test_one_value_has_one_hash_whatever_the_order_of_its_keys(value: dict) -> None:
    assert content_hash(dict(reversed(list(value.items())))) == content_hash(value)
    assert json.loads(canonical_json(value)) == value


def test_the_hash_is_a_known_one() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "ä"}) == '{"a":"ä","b":[1,2.5,null]}'
    assert content_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def outcome(path: Path) -> tuple[dict | None, str]:
    """What reading gives: a value, or the error's message."""
    try:
        return read_sealed_json(path, "run it again"), ""
    except Mt2stError as error:
        return None, str(error)


def test_every_flipped_or_missing_byte_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    value = {"name": "x", "count": 12, "share": 0.5, "list": [True, None]}
    write_sealed_json(path, value)
    good = path.read_bytes()
    harmless = 0
    for position in range(len(good)):
        variants = [good[:position] + bytes([good[position] ^ flip]) + good[position + 1 :] for flip in (1, 0x10, 0x80)]
        for broken in [*variants, good[:position]]:
            path.write_bytes(broken)
            found, message = outcome(path)
            if found is None:
                assert str(path) in message
                assert "run it again" in message
            else:
                assert found == value, "only white space outside the values may differ"
                harmless += 1
    assert harmless < len(good) / 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing; rebuild it"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "carries no checksum"),
        (b"{}", "carries no checksum"),
        (b'{"sha256": 3}', "does not match"),
        (b'{"a": NaN, "sha256": "x"}', "does not match"),
        (b'{"a": "\\ud800", "sha256": "x"}', "does not match"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"sha256": "x", "a": ' + b"[" * 900 + b"]" * 900 + b"}", "does not match|not valid JSON"),
        (b'{"sha256": "x", "a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_foreign_content_is_named_with_the_cure(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Mt2stError, match=message) as caught:
        read_sealed_json(path, "rebuild it")
    assert str(caught.value).count("\n") == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_an_error_and_never_a_value(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    with pytest.raises(Mt2stError):
        read_sealed_json(path, "cure")


def test_what_json_has_no_form_for_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="reserved for the seal"):
        write_sealed_json(tmp_path / "a.json", {"sha256": ""})
    with pytest.raises(ValueError):
        write_sealed_json(tmp_path / "b.json", {"a": float("nan")})
    with pytest.raises(TypeError):
        write_sealed_json(tmp_path / "c.json", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_file_hash_reads_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1_000_000)
    import hashlib

    assert file_hash(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


# -- errors ------------------------------------------------------------------------------------------------------------


def test_unknown_names_get_the_nearest_ones() -> None:
    assert str(unknown_name("schedule", "dimnish", ["switch", "diminish"])) == (
        "unknown schedule 'dimnish'; did you mean 'diminish'? Known: diminish, switch."
    )
    assert str(unknown_name("case", "zzz", ["vqa"], cure="See list.")) == "unknown case 'zzz'. Known: vqa. See list."
    assert str(unknown_name("case", "x", [])) == "unknown case 'x'. None are known."


def test_ranges_include_their_ends_and_never_nan() -> None:
    check_range("share", 0.0, 0.0, 1.0)
    check_range("share", 1.0, 0.0, 1.0)
    for value in (-1e-9, 1.0000001, float("nan"), float("inf")):
        with pytest.raises(Mt2stError, match=r"share = .* is outside \[0, 1\]; half is 0.5"):
            check_range("share", value, 0.0, 1.0, "half is 0.5")
    assert issubclass(Mt2stError, ValueError)
