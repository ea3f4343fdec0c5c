"""Finding an adapter: by file stem, by path, by module path, or by an installed package's entry point. No registry.

A user's adapter file is Python: loading it runs it. Only load files you trust.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from data_prep.call import loaded
from data_prep.plain import is_plain, open_plain
from mt2st.data.card import Adapter, DatasetCard
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import content_hash

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
            return checked_adapter(loaded(point.load, what), text)
    if "." in text:
        what = f"adapter module {text!r} (a file would be a path ending in .py) cannot be imported"
        return checked_adapter(loaded(lambda: importlib.import_module(text), what), text)
    raise unknown_name("dataset", text, adapter_names(), "A path to a .py file or a module path works too.")


def checked_adapter(adapter: Any, place: str) -> Adapter:
    """`adapter` itself, if it has a `CARD` and `examples(split)`; otherwise an error that names what is missing."""
    if not isinstance(getattr(adapter, "CARD", None), DatasetCard):
        raise Mt2stError(f"adapter {place} has no CARD; add `CARD = DatasetCard(name=…, …)` at its top level")
    if not callable(getattr(adapter, "examples", None)):
        raise Mt2stError(f"adapter {place} has no function examples(split); add one that yields Example objects")
    return adapter


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
    loaded(lambda: execute(module), f"adapter file {path} cannot be imported", spec.origin)
    return module
