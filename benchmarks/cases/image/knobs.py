"""Image classification with few labels and many pictures.

    python -m benchmarks image                          scikit-learn's digits, 10 % of the labels
    python -m benchmarks image --recipe fashion-mnist   Fashion-MNIST (Debian dataset-fashion-mnist), 1 % of the labels
    python -m benchmarks image --smoke                  the same in small, for a first look

The method card is image.md beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from benchmarks.cases import auxiliary_names
from benchmarks.cases.shared.data_knobs import LabelledDataKnobs
from benchmarks.cases.shared.encoder_knobs import VitKnobs
from benchmarks.report.spec import Group, Metric, ReportSpec, accuracy
from benchmarks.strategies.diminish import Diminishing
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.sampled import SampledDiminishing
from benchmarks.strategies.stl import SingleTask
from benchmarks.strategies.switch import Switching

SPEC = ReportSpec(
    title="Image classification: few labels, many pictures",
    primary=accuracy(),
    columns=(
        accuracy("linear_probe/accuracy", "linear probe", "linear_probe_score"),
        accuracy("knn/accuracy", "k-NN", "knn_score"),
        Metric("macro_f1", "macro-F1", decimals=3),
        Metric("ece", "ECE", higher_is_better=False, decimals=3),
    ),
    groups=(Group("label", "class"),),
    floors=(("majority class", "majority class"), ("k-NN on pixels", "k-NN on pixels")),
    notes=(
        "The primary task classifies the labelled training pictures; the auxiliaries learn from all training pictures "
        "without labels. Linear probe and k-NN take the frozen encoder's embeddings and the same labelled pictures; "
        "the floor k-NN takes their pixels.",
        "Masked patches, rotation and two views each need an encoding of their own (hidden, turned, two random "
        "views), so the auxiliaries draw a smaller batch than the primary task; nothing of theirs can be shared.",
    ),
)


@dataclass(frozen=True)
class Knobs(LabelledDataKnobs):
    """Image case: a labelled fraction of the pictures for the primary task, all of them for the auxiliaries."""

    AUXILIARIES: ClassVar[tuple[str, ...]] = auxiliary_names("image")

    steps: int = 400
    """optimiser steps of every strategy in the equal-steps view"""
    data: str = "digits"
    """the set: an adapter, a prepared folder, or data that need no code"""
    image_size: int = 8
    """height and width to which all pictures are brought, in pixels"""
    label_fraction: float = 0.1
    """share of training pictures whose labels may be used, class by class"""
    images_per_batch: int = 64
    """labelled pictures a step"""
    auxiliary_images_per_batch: int = 32
    """pictures of the auxiliary batch, shared by all auxiliaries"""
    auxiliaries: tuple[str, ...] = ("masked_patches", "rotation", "two_views")
    """auxiliary tasks (`python -m benchmarks list` names them all)"""
    mask_rate: float = 0.5
    """share of patches that masked-patch reconstruction hides"""
    temperature: float = 0.2
    """temperature of the two-view contrastive loss"""
    encoder: VitKnobs = field(default_factory=VitKnobs)
    """the encoder"""


# The best trials at the equal budget, three seeds each (results/published/image/tuning.md); of Diminish's
# two best, which tie, the one that reaches its cut-off before the end.
TUNED = Knobs(
    settings=(
        SingleTask(1e-3),
        MultiTask(4e-3, 0.3),
        Diminishing(2e-3, 1.0, rate=6.0, shape=2.0),
        Switching(4e-3, 0.3, at=0.3),
        SampledDiminishing(4e-3, 1.0, rate=3.0),
    ),
)
FASHION = replace(
    TUNED, data="fashion_mnist", image_size=28, label_fraction=0.01, steps=250, encoder=VitKnobs(width=48)
)
RECIPES = {
    "default": TUNED,
    "digits-1pct": replace(TUNED, label_fraction=0.01),
    "fashion-mnist": FASHION,
    "fashion-mnist-10pct": replace(FASHION, label_fraction=0.1),
}

TRIALS_AROUND = 2e-3  # peak learning rate around which `tune` tries each strategy


def smoke(knobs: Knobs) -> Knobs:
    """The same in a minute: one seed, few steps."""
    return replace(knobs, steps=40, seeds=1, validations=2, budgets=(0.44,))
