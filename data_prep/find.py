"""Finding an adapter: by file stem, by path, by module path, or by an installed package's entry point. No registry.

A user's adapter file is Python: loading it runs it. Only load files you trust.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from traceback import extract_tb
from typing import Any

from data_prep.plain import is_plain, open_plain
from mt2st.data.card import Adapter, DatasetCard, Example
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import content_hash, file_hash

ENTRY_POINT_GROUP = "mt2st.datasets"
_FOLDER = Path(__file__).parent / "adapters"


def adapter_names() -> list[str]:
    """Names of all adapters that are at hand: our files and the entry points of installed packages.

    Loads none of them.
    """
    stems = {path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_")}
    return sorted(stems | {point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def find_adapter(name: str | Path, mapping: Mapping[str, str] | None = None) -> Adapter:
    """The adapter called `name`.

    Args:
        name: a file stem in `data_prep/adapters/` ("easy_vqa"), an entry point's name, a path to a Python file
            ("my/dir/pets.py"), a module path ("my_package.pets"), or data that need no code (see `data_prep.plain`).
        mapping: our fields → the set's columns, for data that need no code.

    Raises:
        Mt2stError: there is none of that name, it fails to load, or it lacks `CARD` or `examples`.
    """
    text = str(name)
    if is_plain(text):
        return checked_adapter(open_plain(text, mapping), text)
    if mapping:
        raise Mt2stError(
            f"--map is for tables, folders and Hub datasets; {text!r} has an adapter that knows its columns"
        )
    if text.endswith(".py"):
        return checked_adapter(_load_file(Path(text)), text)
    if (_FOLDER / f"{text}.py").is_file() and not text.startswith("_"):
        return checked_adapter(importlib.import_module(f"data_prep.adapters.{text}"), text)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == text:
            what = f"adapter {text!r} of an installed package ({point.value}) cannot be imported"
            return checked_adapter(_loaded(point.load, what), text)
    if "." in text:
        what = f"adapter module {text!r} (a file would be a path ending in .py) cannot be imported"
        return checked_adapter(_loaded(lambda: importlib.import_module(text), what), text)
    raise unknown_name("dataset", text, adapter_names(), "A path to a .py file or a module path works too.")


def checked_adapter(adapter: Any, place: str) -> Adapter:
    """`adapter` itself, if it has a `CARD` and `examples(split)`; otherwise an error that names what is missing."""
    if not isinstance(getattr(adapter, "CARD", None), DatasetCard):
        raise Mt2stError(f"adapter {place} has no CARD; add `CARD = DatasetCard(name=…, …)` at its top level")
    if not callable(getattr(adapter, "examples", None)):
        raise Mt2stError(f"adapter {place} has no function examples(split); add one that yields Example objects")
    return adapter


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
        # Errors of ours name their place, but for what `Example` itself refuses.
        if isinstance(error, Mt2stError) and not str(error).startswith("Example"):
            raise
        place = f"adapter {adapter.CARD.name!r}, split {split!r}, example {number}"
        raise _adapter_error(place, error, getattr(adapter, "__file__", None)) from error


def adapter_fingerprint(adapter: Adapter) -> str:
    """Hash of the adapter's file, of its settings if it is an object, and of what its `fingerprint()` says, if it has
    one.
    """
    path = getattr(adapter, "__file__", None) or getattr(sys.modules.get(type(adapter).__module__), "__file__", None)
    settings: dict[str, Any] = asdict(adapter) if is_dataclass(adapter) and not isinstance(adapter, type) else {}
    fingerprint: Callable[[], str] = getattr(adapter, "fingerprint", str)
    own = _loaded(fingerprint, f"dataset {adapter.CARD.name!r}: its fingerprint() fails")
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


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise Mt2stError(
            f"adapter file {path} does not exist; give the path of a Python file with CARD and examples(split)"
        )
    name = f"mt2st_adapter_{content_hash(str(path.resolve()))[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Mt2stError(f"adapter file {path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up here
    execute = spec.loader.exec_module
    _loaded(lambda: execute(module), f"adapter file {path} cannot be imported", spec.origin)
    return module


def _loaded(load: Callable[[], Any], what: str, file: str | None = None) -> Any:
    """What `load` returns; whatever somebody's code raises there becomes one line that begins with `what`."""
    try:
        return load()
    except Mt2stError:
        raise
    except Exception as error:
        raise _adapter_error(what, error, file) from error


def _adapter_error(place: str, error: Exception, file: str | None) -> Mt2stError:
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
