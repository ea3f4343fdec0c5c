"""The runs that are shown: each one's model, and the examples of its test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mt2st
from benchmarks.records.examples import Examples, read_examples
from mt2st.errors import Mt2stError
from mt2st.trained.vision_language import VisionLanguageModel


@dataclass(frozen=True)
class ShownRun:
    """A finished run.

    Attributes:
        folder: the run's folder.
        model: its model.
        examples: of its test split, with what it answered there; None = it kept none.
    """

    folder: Path
    model: Any
    examples: Examples | None

    @property
    def name(self) -> str:
        """What people call it: strategy and seed, or the folder's name."""
        about = self.model.about
        if about.get("strategy"):
            return f"{about['strategy']}, seed {about.get('seed', 0)}"
        return str(about.get("run_id", self.folder.name))

    @property
    def answers_questions(self) -> bool:
        """Whether it was trained to."""
        return bool(self.model.answers)


def open_runs(folders: Sequence[Path], device: str) -> list[ShownRun]:
    """Load the runs.

    Raises:
        Mt2stError: a folder is no finished run, or its model has no pictures and texts.
    """
    return [_open(folder, device) for folder in folders]


def _open(folder: Path, device: str) -> ShownRun:
    model = mt2st.load(folder, device=device)
    if not isinstance(model, VisionLanguageModel):
        raise Mt2stError(
            f"{folder} is a run of {model.about.get('benchmark', 'another case')}; demo shows runs of vqa and "
            "retrieval; mt2st.load gives its model"
        )
    return ShownRun(folder, model, read_examples(folder))
