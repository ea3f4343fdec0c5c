"""`model.json` of a finished run, by which `mt2st.load` makes its model again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.cases import Loadable
from benchmarks.records.folder import RunFolder
from mt2st.encoders.architecture import IMAGE, TEXT, write_architecture
from mt2st.trained.description import TOWERS_FOLDER, write_description

_SIDES = {"image": (IMAGE,), "text": (TEXT,)}  # of kinds that have one
_DATA = ("name", "revision", "licence", "content_hash")


def describe_model(folder: RunFolder, model: Loadable, record: Mapping[str, Any]) -> None:
    """Write `model.json` into a run's folder that holds its weights and the model's other files."""
    identity = folder.identity
    if model.checkpoint:
        write_architecture(model.checkpoint, folder.path / TOWERS_FOLDER, _SIDES.get(model.kind, (IMAGE, TEXT)))
    write_description(
        folder.path,
        model.kind,
        model.build,
        weights=str(record["weights"]["file"]),
        files=_files(folder.path, model.files),
        about={
            **{name: identity[name] for name in ("run_id", "benchmark", "recipe", "strategy", "seed")},
            "schedules": dict(record["schedules"]),
            "steps": record["steps"],
            "training_flops": record["flops"]["total"],
            "parameters": record["model"]["parameters"],
            "data": {name: record["data"][name] for name in _DATA if name in record["data"]},
            "test": {name: value for name, value in record["metrics"]["test"].items() if value == value},
        },
    )


def _files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that are there, and all files of the towers' folder."""
    towers = [path.relative_to(folder).as_posix() for path in (folder / TOWERS_FOLDER).rglob("*") if path.is_file()]
    return [*(name for name in names if (folder / name).is_file()), *towers]
