"""What the cases of pictures with classes share: batches and the image encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from benchmarks.cases import Loadable
from benchmarks.cases.shared.encoder_knobs import VitKnobs
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import ItemStream
from mt2st.encoders.image_transformer import ImageConfig, ImageEncoder
from mt2st.errors import Mt2stError, unknown_name


def items_of(split: PreparedSplit, codes: np.ndarray, items_per_batch: int = 1, seed: int = 0) -> ItemStream:
    """Pictures with their class numbers."""
    return ItemStream(
        {"label": torch.from_numpy(codes)}, split=split, items_per_batch=items_per_batch, seed=seed, name="labelled"
    )


def build_image_encoder(knobs: VitKnobs, image_size: int, seed: int) -> ImageEncoder:
    """An image encoder with initial weights that depend on `seed` alone, or the checkpoint's."""
    torch.manual_seed(seed)
    if knobs.model.startswith("hf:"):
        encoder = ImageEncoder.pretrained(knobs.model.removeprefix("hf:"))
        if encoder.image_size != image_size:
            raise Mt2stError(
                f"{knobs.model!r} takes {encoder.image_size} px; set image_size = {encoder.image_size} (now "
                f"{image_size})"
            )
        return encoder
    if knobs.model != "small":
        raise unknown_name("model", knobs.model, ("small",), "Or hf:NAME_OR_FOLDER of a ViT checkpoint.")
    return ImageEncoder.small(_sizes(knobs, image_size))


def loadable_images(
    knobs: VitKnobs, image_size: int, fit: str, *, question: str, classes: Sequence[str], head: str
) -> Loadable:
    """How `mt2st.load` makes the trained model again.

    Args:
        fit: how pictures were made square when the data were prepared.
        head: name of the primary task.
    """
    build = {"question": question, "classes": list(classes), "head": head, "fit": fit, **knobs.lora_build}
    if knobs.model == "small":
        return Loadable("image", {**build, "small": asdict(_sizes(knobs, image_size))})
    return Loadable("image", build, checkpoint=knobs.model)


def _sizes(knobs: VitKnobs, image_size: int) -> ImageConfig:
    return ImageConfig(image_size, knobs.patch_size, knobs.width, knobs.layers, knobs.heads, knobs.mlp_ratio)
