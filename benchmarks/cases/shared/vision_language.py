"""Encoder and tokenizer of the vision-language cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Loadable
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from mt2st.data.prepared import PreparedSplit
from mt2st.encoders.factory import text_side
from mt2st.encoders.frozen_outputs import Inputs, Pictures, Texts
from mt2st.encoders.open_clip_towers import SmallConfig
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.objectives.masked_lm import MaskedLanguageObjective
from mt2st.trained.vision_language import ANSWERS_FILE, TOKENIZER_FILE, trimming
from mt2st.trained.vision_language import build_encoder as mt2st_build_encoder

__all__ = [
    "build_encoder",
    "encoder_build",
    "loadable",
    "masked_language",
    "tower_inputs",
    "train_tokenizer",
    "trimming",
]


def train_tokenizer(
    knobs: EncoderKnobs, texts: list[str], inherited: TextTokenizer | None = None
) -> TextTokenizer | None:
    """A tokenizer for a small text tower; None where the text tower brings its own.

    It is trained on `texts`, unless one is `inherited` with the weights.
    """
    if text_side(knobs.towers) != "small":
        return None
    return inherited or TextTokenizer.train(texts, knobs.vocabulary_size)


def build_encoder(
    knobs: EncoderKnobs, image_size: int, tokenizer: TextTokenizer | None, seed: int
) -> VisionLanguageEncoder:
    """Towers and fusion with initial weights that depend on `seed` alone."""
    torch.manual_seed(seed)
    return mt2st_build_encoder(encoder_build(knobs, image_size), tokenizer)


def encoder_build(knobs: EncoderKnobs, image_size: int) -> dict[str, Any]:
    """What `mt2st.trained` must know to build the encoder again."""
    small = SmallConfig(
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
    return {
        "towers": knobs.towers,
        "small": asdict(small),
        "fusion_width": knobs.fusion_width,
        "fusion_layers": knobs.fusion_layers,
        "fusion_heads": knobs.heads,
    }


def loadable(knobs: EncoderKnobs, image_size: int, fit: str, head: str = "") -> Loadable:
    """How `mt2st.load` makes the trained model again.

    Args:
        fit: how pictures were made square when the data were prepared.
        head: name of the task that answers; "" for a model without answers.
    """
    build = {
        **encoder_build(knobs, image_size),
        "image_size": image_size,
        "fit": fit,
        "head": head,
        **knobs.lora_build,
    }
    checkpoint = "" if knobs.towers == "small" else knobs.towers
    return Loadable("vision-language", build, (TOKENIZER_FILE, ANSWERS_FILE), checkpoint)


def tower_inputs(
    encoder: VisionLanguageEncoder,
    tokenize: Callable[[list[str]], Tensor],
    splits: Sequence[PreparedSplit],
    texts: Callable[[], list[list[str]]],
) -> dict[str, Callable[[], Inputs]]:
    """All that the towers will be given as it stands: the pictures of `splits`, and texts."""
    return {
        "image": lambda: Pictures(splits),
        "text": lambda: Texts([tokenize(each) for each in texts() if each], encoder.towers.pad_id),
    }


def masked_language(
    encoder: VisionLanguageEncoder, tokenizer: TextTokenizer | None, mask_rate: float
) -> MaskedLanguageObjective:
    """Masked language modelling on the encoder's own vocabulary; start and end tokens are never hidden."""
    frame = (tokenizer.start_id, tokenizer.end_id) if tokenizer is not None else ()
    towers = encoder.towers
    return MaskedLanguageObjective(
        encoder.fusion.width,
        towers.vocabulary_size,
        towers.mask_id,
        rate=mask_rate,
        frame_ids=frame,
        table=encoder.token_table(),
    )
