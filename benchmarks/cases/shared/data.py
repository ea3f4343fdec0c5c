"""What the vision-language cases share: data with the leakage guard, encoder and tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.cases.shared.data_knobs import DataKnobs
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from benchmarks.records.check import LEFT_IN
from data_prep.prepare import prepare
from data_prep.readers.rows import parse_mapping
from mt2st.data.splits import PreparedDataset, PreparedSplit, leaked_images, without_leaked
from mt2st.encoders.factory import make_towers
from mt2st.encoders.open_clip_towers import SmallConfig
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError


def prepared(
    knobs: DataKnobs, image_size: int | None, *, options: dict[str, Any] | None = None, console: Console
) -> PreparedDataset:
    """Prepare `knobs.data` if that was not done before, and open it: a folder of prepared data is opened as it is.

    Args:
        image_size: side of the pictures, in pixels; None for a case of texts alone, which takes a folder of any.

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
            source=knobs.source or None,
            mapping=mapping,
        )
    return PreparedDataset.open(place)


def guarded(
    train: PreparedSplit, evaluations: Sequence[PreparedSplit], on_leak: str, items: str = "images"
) -> tuple[PreparedSplit, dict[str, int]]:
    """`train` without the images whose content is in `evaluations`, and for the record how many were dropped, or left
    in.

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
            "images, such as "
            f"{', '.join(leaked[:3])}; a score on images seen in training tells nothing: --on-leak drop trains without "
            "them, "
            "--on-leak allow with them (where a published split is so), and the report says so"
        )
    return without_leaked(train, evaluation)


def train_tokenizer(knobs: EncoderKnobs, texts: list[str]) -> TextTokenizer | None:
    """A tokenizer trained on `texts` for small towers; None for towers that bring their own."""
    return TextTokenizer.train(texts, knobs.vocabulary_size) if knobs.towers == "small" else None


def build_encoder(
    knobs: EncoderKnobs, image_size: int, tokenizer: TextTokenizer | None, seed: int
) -> VisionLanguageEncoder:
    """Towers and fusion with initial weights that depend on `seed` alone."""
    torch.manual_seed(seed)
    config = SmallConfig(
        image_size=image_size,
        width=knobs.width,
        layers=knobs.layers,
        text_layers=knobs.text_layers,
        heads=knobs.heads,
        embedding_width=knobs.embedding_width,
        context_length=knobs.context_length,
        mlp_ratio=knobs.mlp_ratio,
        stem_width=knobs.stem_width,
    )
    towers = make_towers(knobs.towers, small=config, tokenizer=tokenizer)
    return VisionLanguageEncoder(
        towers, fusion_width=knobs.fusion_width, fusion_layers=knobs.fusion_layers, fusion_heads=knobs.heads
    )


def trimming(tokenize: Callable[[list[str]], Tensor], pad_id: int) -> Callable[[list[str]], Tensor]:
    """`tokenize` without the columns in which every text is padding: attention over padding costs FLOPs and tells
    nothing.
    """

    def trimmed(texts: list[str]) -> Tensor:
        tokens = tokenize(texts)
        used = (tokens != pad_id).any(0).nonzero()
        return tokens[:, : int(used.max()) + 1] if len(used) else tokens[:, :1]

    return trimmed
