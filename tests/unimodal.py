"""The unimodal encoders, objectives and cases, each in small: what the contract sweeps run over. A new one is one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.strategies import SuiteKnobs
from mt2st.encoders.image_transformer import ImageConfig, ImageEncoder
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.masked_patches import MaskedPatchObjective
from mt2st.objectives.rotation import RotationObjective
from mt2st.objectives.two_views import TwoViewObjective


class Trial(NamedTuple):
    """An objective with an encoder and a batch it can learn from."""

    encoder: Any
    objective: nn.Module
    batch: dict[str, Tensor]


def _pictures(count: int = 8) -> dict[str, Tensor]:
    """Pictures whose upper half is as bright as their class says."""
    label = torch.arange(count) % 4
    pixels = torch.randint(0, 30, (count, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pixels[:, :, :4] += (50 * label)[:, None, None, None].to(torch.uint8)
    return {"pixels": pixels, "label": label}


def tiny_vit() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder.small(ImageConfig(image_size=8, patch_size=2, width=16, layers=1, heads=2))


TRIALS: dict[str, Callable[[], Trial]] = {
    "class": lambda: Trial(tiny_vit(), ClassificationObjective(16, 4), _pictures()),
    "masked_patches": lambda: Trial(tiny_vit(), MaskedPatchObjective(16, 2), _pictures()),
    "rotation": lambda: Trial(tiny_vit(), RotationObjective(16), _pictures()),
    "two_views": lambda: Trial(tiny_vit(), TwoViewObjective(16), _pictures()),
}
ENCODER_FILES = {"image_transformer"}


def objective_files() -> set[str]:
    """Files of `mt2st/objectives/` that the trials sweep."""
    return {type(trial().objective).__module__.rpartition(".")[2] for trial in TRIALS.values()}


# -- cases -----------------------------------------------------------------------------------------------------------------


def _image(folder: Path) -> SuiteKnobs:
    recipe = import_module("benchmarks.recipes.image")
    vit = replace(recipe.VitKnobs(), width=16, layers=1, heads=2)
    return recipe.Knobs(images_per_batch=8, auxiliary_images_per_batch=8, encoder=vit)


CASES: dict[str, Callable[[Path], SuiteKnobs]] = {"image": _image}
