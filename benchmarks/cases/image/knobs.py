"""Pictures: are both of one class? Few pairs with an answer, many pictures with a class.

    python -m benchmarks image                          Fashion-MNIST, 1,000 pairs with an answer
    python -m benchmarks image --recipe digits-pairs    the same with scikit-learn's digits, nothing to fetch
    python -m benchmarks image --recipe digits          of which class is a digit? 10 % of the labels
    python -m benchmarks image --smoke                  the default in small, for a first look

The method card is README.md beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from benchmarks.cases import auxiliary_names
from benchmarks.cases.shared.data_knobs import LabelledDataKnobs
from benchmarks.cases.shared.encoder_knobs import VitKnobs
from benchmarks.cases.shared.question_knobs import check_even, check_pairs, check_question
from benchmarks.report.spec import Group, Metric, ReportSpec, accuracy
from benchmarks.strategies.diminish import Diminishing
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.sampled import SampledDiminishing
from benchmarks.strategies.stl import SingleTask
from benchmarks.strategies.switch import Switching
from benchmarks.strategies.thinned import Thinning

SPEC = ReportSpec(
    title="Pictures: the same class? Few labels, many pictures",
    primary=accuracy(),
    margin=0.01,
    margin_reason="one point is what 10,000 test pairs resolve",
    columns=(
        accuracy("linear_probe/accuracy", "linear probe", "linear_probe_score"),
        accuracy("knn/accuracy", "k-NN", "knn_score"),
        Metric("macro_f1", "macro-F1", decimals=3),
        Metric("ece", "ECE", higher_is_better=False, decimals=3),
    ),
    groups=(Group("answer", "true answer"), Group("label", "class")),
    notes=(
        "Question same_class: are both pictures of a pair of one class? Half of the pairs are, and each picture is in "
        "one pair of either kind. The auxiliary learns the classes of all training pictures, a related annotation.",
        "Question class: the primary task classifies the labelled training pictures; the auxiliaries learn from all "
        "training pictures without labels. Linear probe and k-NN take the frozen encoder's embeddings and the same "
        "labelled pictures; the floor k-NN takes their pixels. Masked patches, rotation and two views each need an "
        "encoding of their own, so their batch is smaller than the primary task's.",
    ),
)


@dataclass(frozen=True)
class Knobs(LabelledDataKnobs):
    """Image case: few pairs or pictures with an answer for the primary task, all pictures for the auxiliaries."""

    AUXILIARIES: ClassVar[tuple[str, ...]] = auxiliary_names("image")

    steps: int = 400
    """optimiser steps of every strategy in the equal-steps view"""
    data: str = "digits"
    """the set: an adapter, a prepared folder, or data that need no code"""
    image_size: int = 8
    """height and width to which all pictures are brought, in pixels"""
    question: Literal["same_class", "class"] = "class"
    """what the primary task asks: are both pictures of a pair of one class, or of which class is a picture"""
    labelled_pairs: int = 1000
    """pairs of training pictures whose answer may be used (question same_class)"""
    validation_pairs: int = 2000
    """pairs of validation pictures, at most (question same_class)"""
    label_fraction: float = 0.1
    """share of training pictures whose labels may be used, class by class (question class)"""
    images_per_batch: int = 64
    """labelled pictures a step; two make a pair"""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_question(self.question, self.auxiliaries, "class")
        if self.question == "same_class":
            check_pairs(self)
            check_even("images_per_batch", self.images_per_batch, "pictures")


# The best trials at the equal budget, three seeds each, searched by version 0.2; of Diminish's
# two best, which tie, the one that reaches its cut-off before the end.
DIGITS = Knobs(
    settings=(
        SingleTask(1e-3),
        MultiTask(4e-3, 0.3),
        Diminishing(2e-3, 1.0, rate=6.0, shape=2.0),
        Switching(4e-3, 0.3, at=0.3),
        SampledDiminishing(4e-3, 1.0, rate=3.0),
    ),
)
FASHION = replace(
    DIGITS, data="fashion_mnist", image_size=28, label_fraction=0.01, steps=250, encoder=VitKnobs(width=48)
)
PAIRS = replace(
    DIGITS,
    question="same_class",
    data="fashion_mnist",
    image_size=28,
    steps=500,
    validations=4,
    auxiliaries=("class",),
    auxiliary_images_per_batch=64,
    encoder=VitKnobs(patch_size=7, width=48),
    # The best of eleven trials each on validation, three seeds a trial, at 44 % of full MTL's FLOPs
    # (results/published/image/tuning.md).
    settings=(
        SingleTask(1e-3, early_stopping=True),
        MultiTask(8e-3, 2.0),
        Diminishing(8e-3, 2.0, rate=5.0, shape=8.0),
        Switching(4e-3, 2.0, at=0.7),
        SampledDiminishing(4e-3, 2.0, rate=7.5, shape=8.0),
        Thinning(4e-3, 4.0, share=0.9),
    ),
)
RECIPES = {
    "default": replace(PAIRS, budgets=(0.3, 0.44)),
    "digits-pairs": replace(PAIRS, data="digits", image_size=8, labelled_pairs=400, encoder=VitKnobs()),
    "digits": DIGITS,
    "digits-1pct": replace(DIGITS, label_fraction=0.01),
    "fashion-mnist": FASHION,
    "fashion-mnist-10pct": replace(FASHION, label_fraction=0.1),
}


def smoke(knobs: Knobs) -> Knobs:
    """The same in a minute: one seed, few steps."""
    return replace(knobs, steps=40, seeds=1, validations=2, budgets=(0.44,))
