"""`model.json` of a finished run, by which `mt2st.load` makes its model again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.cases import Loadable
from benchmarks.records.folder import RunFolder
from mt2st.trained.description import write_description

_DATA = ("name", "revision", "licence", "content_hash")


def describe_model(folder: RunFolder, model: Loadable, record: Mapping[str, Any]) -> None:
    """Write `model.json` into a run's folder that holds its weights and the model's other files."""
    identity = folder.identity
    write_description(
        folder.path,
        model.kind,
        model.build,
        weights=str(record["weights"]["file"]),
        files=[name for name in model.files if (folder.path / name).is_file()],
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
