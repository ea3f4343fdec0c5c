"""The data of a case: prepared once, guarded against leaks, with a validation part carved out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.cases.shared.data_knobs import DataKnobs
from benchmarks.records.check import LEFT_IN
from data_prep.prepare import prepare
from data_prep.readers.rows import parse_mapping
from mt2st.data.prepared import PreparedDataset, PreparedSplit
from mt2st.data.splits import carve_validation, leaked_images, without_leaked
from mt2st.errors import Mt2stError


def prepared(
    knobs: DataKnobs,
    image_size: int | None,
    *,
    options: dict[str, Any] | None = None,
    fit: str = "squash",
    console: Console,
) -> PreparedDataset:
    """Prepare `knobs.data` if that was not done before, and open it: a folder of prepared data is opened as it is.

    Args:
        image_size: side of the pictures, in pixels; None for a case of texts alone, which takes a folder of any.
        fit: how an image becomes square, as the image tower's weights expect it.

    Raises:
        Mt2stError: a prepared folder of another image size, or one with settings that only preparing can follow.
    """
    options = {**(options or {}), **dict(option.split("=", 1) for option in knobs.options)}
    if (Path(knobs.data) / "manifest.json").is_file():
        if knobs.source or knobs.map or knobs.options:
            raise Mt2stError(
                f"{knobs.data} is prepared already, so source, map and options come too late; leave them out, or "
                "prepare anew"
            )
        found = PreparedDataset.open(knobs.data)
        if image_size is not None and found.image_size != image_size:
            raise Mt2stError(
                f"{knobs.data} holds images of {found.image_size} px, not {image_size}; set --image-size "
                f"{found.image_size}"
            )
        return found
    mapping = parse_mapping(knobs.map) if knobs.map else None
    with console.status(f"preparing {knobs.data}" + (f" at {image_size} px" if image_size else "")):
        place = prepare(
            knobs.data,
            out=knobs.data_folder,
            image_size=image_size or 1,
            options=options or None,
            fit=fit,
            source=knobs.source or None,
            mapping=mapping,
        )
    return PreparedDataset.open(place)


def guarded(
    train: PreparedSplit, evaluations: Sequence[PreparedSplit], on_leak: str, items: str = "images"
) -> tuple[PreparedSplit, dict[str, int]]:
    """`train` without the images whose content is in `evaluations`.

    Returns:
        the split, and for the record how many images were dropped, or left in.

    Raises:
        Mt2stError: there are such images and `on_leak` is "refuse".
    """
    dropped = left = 0
    for evaluation in evaluations:
        leaked = leaked_images(evaluation, train)
        if leaked and on_leak == "allow":
            left += len(leaked)
        elif leaked:
            train = _without(train, evaluation, leaked, on_leak)
            dropped += len(leaked)
    return train, {f"training_{items}_dropped_for_being_in_test": dropped} | ({LEFT_IN: left} if left else {})


def _without(train: PreparedSplit, evaluation: PreparedSplit, leaked: list[str], on_leak: str) -> PreparedSplit:
    if on_leak == "refuse":
        raise Mt2stError(
            f"{len(leaked)} training images of {train.dataset.card.name!r} have the content of {evaluation.name!r} "
            f"images, such as {', '.join(leaked[:3])}; a score on images seen in training tells nothing: --on-leak "
            "drop trains without them, --on-leak allow with them (where a published split is so), and the report says "
            "so"
        )
    return without_leaked(train, evaluation)


def carved(whole: PreparedSplit, fraction: float, draw: int) -> tuple[PreparedSplit, PreparedSplit]:
    """Training and validation part of `whole`, by the seed `draw`."""
    train_rows, validation_rows = carve_validation(whole, fraction, seed=draw)
    return whole.subset(train_rows), whole.subset(validation_rows)


def facts(dataset: PreparedDataset, leaked: Mapping[str, int]) -> dict[str, Any]:
    """What every record says of its data: name, revision, content hash, how many training items leaked."""
    card = dataset.card
    return {"name": card.name, "revision": card.revision, "content_hash": dataset.content_hash, **leaked}
