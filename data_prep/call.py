"""Calling an adapter: its source folder, its options, its fingerprint; its errors become one line that says where."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any

from mt2st.data.card import Adapter, Example, ExampleError
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import content_hash, file_hash


def adapter_source(adapter: Adapter, source: Path | None) -> Path | None:
    """The folder or file an adapter reads: what the user gave, or the adapter's own default (`default_source()`), if it
    has one.

    Raises:
        Mt2stError: the adapter needs a source and has none, takes none but got one, or the source does not exist.
    """
    takes = "source" in inspect.signature(adapter.examples).parameters
    default: Callable[[], Path] | None = getattr(adapter, "default_source", None)
    name = adapter.CARD.name
    if source is not None and not takes:
        raise Mt2stError(
            f"dataset {name!r} reads no --source ({adapter.CARD.requires or 'it brings its own data'}); leave --source "
            "out"
        )
    if source is None and default is not None:
        source = default()
    if takes and source is None:
        raise Mt2stError(f"dataset {name!r} needs --source: {adapter.CARD.requires or 'the folder with its files'}")
    if source is not None and not source.exists():
        raise Mt2stError(
            f"--source {source} of dataset {name!r} does not exist; it needs "
            f"{adapter.CARD.requires or 'the folder with its files'}"
        )
    return source


def call_examples(
    adapter: Adapter, split: str, source: Path | None, options: dict[str, Any], image_size: int
) -> Iterator[Example]:
    """`adapter.examples(split)` with `source` and `image_size` if it takes them, and with the user's `options`.

    Raises:
        Mt2stError: an option that the adapter does not take; while reading, whatever goes wrong inside the adapter.
    """
    parameters = inspect.signature(adapter.examples).parameters
    known = [name for name in parameters if name not in ("split", "source", "image_size")]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of dataset {adapter.CARD.name!r}", name, known)
    arguments = dict(options)
    own = {"source": source, "image_size": image_size}
    arguments |= {name: value for name, value in own.items() if name in parameters}
    return named_errors(adapter, split, lambda: adapter.examples(split, **arguments))


def named_errors(adapter: Adapter, split: str, read: Callable[[], Iterable[Example]]) -> Iterator[Example]:
    """What `read` yields; an error inside the adapter says at which example (counted from 0) it came up.

    Raises:
        Mt2stError: names adapter, split, example, and the kind, text and line of the adapter's own error, which is its
            cause.
    """
    number = 0
    try:
        for example in read():
            yield example
            number += 1
    except Exception as error:
        if isinstance(error, Mt2stError) and not isinstance(error, ExampleError):
            raise  # it names its place
        place = f"adapter {adapter.CARD.name!r}, split {split!r}, example {number}"
        raise adapter_error(place, error, getattr(adapter, "__file__", None)) from error


def adapter_fingerprint(adapter: Adapter) -> str:
    """Hash of the adapter's file, of its settings if it is an object, and of what its `fingerprint()` says, if it has
    one.
    """
    path = getattr(adapter, "__file__", None) or getattr(sys.modules.get(type(adapter).__module__), "__file__", None)
    settings: dict[str, Any] = asdict(adapter) if is_dataclass(adapter) and not isinstance(adapter, type) else {}
    fingerprint: Callable[[], str] = getattr(adapter, "fingerprint", str)
    own = loaded(fingerprint, f"dataset {adapter.CARD.name!r}: its fingerprint() fails")
    return content_hash(
        [file_hash(Path(path)) if path else "", {name: repr(value) for name, value in settings.items()}, own]
    )


def left_out(adapter: Adapter, source: Path | None, splits: Sequence[str]) -> dict[str, int]:
    """What the adapter itself left out of `splits`, by reason (`left_out()`), for the manifest.

    Empty where it does not say.
    """
    count: Callable[..., dict[str, int]] | None = getattr(adapter, "left_out", None)
    if count is None:
        return {}
    parameters = inspect.signature(count).parameters
    return count(**{name: value for name, value in (("source", source), ("splits", splits)) if name in parameters})


def source_fingerprint(source: Path | None) -> str:
    """Hash of the names, sizes and modification times of a source's files: a changed source prepares anew.

    Reads no content.
    """
    if source is None:
        return ""
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return content_hash(
        [[str(path.relative_to(source)), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    )


def loaded(load: Callable[[], Any], what: str, file: str | None = None) -> Any:
    """What `load` returns; whatever somebody's code raises there becomes one line that begins with `what`."""
    try:
        return load()
    except Mt2stError:
        raise
    except Exception as error:
        raise adapter_error(what, error, file) from error


def adapter_error(place: str, error: Exception, file: str | None) -> Mt2stError:
    """`error` of somebody's adapter in one line; `file` is the adapter's, to name the line of it that was at work."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == file]
    at = f" ({Path(file).name}, line {lines[-1]})" if file and lines else ""
    cure = "mend the adapter, or the record that it cannot read"
    if isinstance(error, FileNotFoundError):
        cure = "complete the source folder, or check --source"
    elif isinstance(error, ImportError):
        cure = "install the missing package, or mend the import; the bundled sets need pip install -e '.[data]'"
    kind = "" if isinstance(error, Mt2stError) else f"{type(error).__name__}: "
    return Mt2stError(f"{place}: {kind}{' '.join(str(error).split())[:300]}{at}; {cure}")
