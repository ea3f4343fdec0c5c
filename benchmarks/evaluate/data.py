"""The data that models are evaluated on: prepared once for all models, with the pictures as they came."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.evaluate.options import AUTO, Options
from data_prep.find import find_adapter
from data_prep.prepare import prepare
from data_prep.readers.rows import parse_mapping
from mt2st.data.prepared import PreparedDataset, PreparedSplit
from mt2st.errors import Mt2stError

STORED_SIZE = 224  # px: side of the squares that tell equal images; the originals are kept beside them
_TASKS_OF = {"retrieval": ("retrieval",), "classification": ("zero-shot", "probes"), "vqa": ("vqa",)}
_NEED_TRAINING = ("zero-shot", "probes", "vqa")  # classes, examples and answers come from the training split


@dataclass(frozen=True)
class EvaluationData:
    """A set to evaluate on.

    Attributes:
        dataset: the prepared set.
        split: what is evaluated.
        train: what probes learn from, and where classes and candidate answers are counted; None where no task asks.
        tasks: of `benchmarks.evaluate.options.TASKS`.
    """

    dataset: PreparedDataset
    split: PreparedSplit
    train: PreparedSplit | None
    tasks: tuple[str, ...]

    @property
    def training(self) -> PreparedSplit:
        """The training split, where a task cannot do without."""
        if self.train is None:
            raise Mt2stError(
                f"{self.dataset.card.name!r} has the splits {', '.join(self.dataset.splits)}, but this task learns "
                "from a training split; name one with --train-split"
            )
        return self.train


def open_data(name: str, options: Options, console: Console) -> EvaluationData:
    """Prepare the splits that the tasks need, unless that was done before, and open them.

    A folder of prepared data is opened as it is.

    Raises:
        Mt2stError: unknown set or split, data that cannot be prepared, or a set whose card names no task known here.
    """
    if (Path(name) / "manifest.json").is_file():
        dataset = PreparedDataset.open(name)
        tasks = _tasks(options, dataset.card.task, name)
    else:
        mapping = parse_mapping(options.map) if options.map else None
        card = find_adapter(name, mapping).CARD
        tasks = _tasks(options, card.task, name)
        wanted = [options.split]
        if options.train_split in card.splits and set(tasks) & set(_NEED_TRAINING):
            wanted.append(options.train_split)
        with console.status(f"preparing {name}"):
            place = prepare(
                name,
                out=options.data_folder,
                image_size=STORED_SIZE,
                source=options.source or None,
                mapping=mapping,
                splits=wanted,
                options=dict(option.split("=", 1) for option in options.options) or None,
                store="encoded",
            )
        dataset = PreparedDataset.open(place)
    train = None
    if options.train_split in dataset.splits and options.train_split != options.split:
        train = _pictured(dataset.split(options.train_split), options.limit)
    split = _pictured(dataset.split(options.split), options.limit)
    if not split.num_images:
        raise Mt2stError(f"split {options.split!r} of {name!r} holds no images; name another with --split")
    return EvaluationData(dataset, split, train, tasks)


def _tasks(options: Options, of_card: str, name: str) -> tuple[str, ...]:
    if options.tasks != (AUTO,):
        chosen = (task for task in options.tasks if task != AUTO)
        return tuple(dict.fromkeys(chosen))
    if of_card not in _TASKS_OF:
        raise Mt2stError(
            f"the card of {name!r} says {of_card}, which a model of images and texts is not asked here; name what to "
            "measure with --tasks"
        )
    return _TASKS_OF[of_card]


def _pictured(split: PreparedSplit, limit: int) -> PreparedSplit:
    """The first `limit` items of `split` that are pictures; 0 = all of them."""
    rows = np.flatnonzero(split.has_pixels())
    return split.subset(rows[:limit] if limit else rows)


def facts(data: EvaluationData) -> dict[str, Any]:
    """What a record says of its data."""
    card, split = data.dataset.card, data.split
    return {
        "name": card.name,
        "revision": card.revision,
        "content_hash": data.dataset.content_hash,
        "split": split.name,
        "images": split.num_images,
        "captions": split.num_captions,
        "questions": split.num_questions,
        "pictures": "originals" if data.dataset.manifest["store"] == "encoded" else f"{split.image_size} px squares",
    }
