"""Class-conditional diffusion of small pictures: few with a class, many without.

    python -m benchmarks diffusion                       Fashion-MNIST at 14×14, 50 pictures with a class
    python -m benchmarks diffusion --recipe openmoji     OpenMoji at 32×32, all with a class
    python -m benchmarks diffusion --smoke               the default in small, for a first look

The method card is README.md beside this file. Needs the extra `diffusion` (package diffusers).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from benchmarks.cases import auxiliary_names
from benchmarks.cases.shared.data_knobs import DataKnobs
from benchmarks.cases.shared.encoder_knobs import VitKnobs
from benchmarks.report.spec import Metric, ReportSpec
from benchmarks.strategies.diminish import Diminishing
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.sampled import SampledDiminishing
from benchmarks.strategies.stl import SingleTask
from benchmarks.strategies.switch import Switching
from benchmarks.strategies.thinned import Thinning
from mt2st.errors import check_range

NOISE_LEVELS = (20, 100, 250, 500, 800)  # of 1,000: where held-out loss is measured
SAMPLES_FILE = "samples.png"

SPEC = ReportSpec(
    title="Diffusion: class-conditional pictures",
    primary=Metric("denoising_loss", "denoising loss", higher_is_better=False, arrays=("loss",), decimals=4),
    columns=(
        *(
            Metric(
                f"t{level}/denoising_loss",
                f"t = {level}",
                higher_is_better=False,
                arrays=(f"loss_t{level}",),
                decimals=4,
            )
            for level in NOISE_LEVELS
        ),
        Metric("frechet_distance", "Fréchet, own classifier", higher_is_better=False, decimals=2),
        Metric("samples/accuracy", "samples in class", scale=100, unit="%"),
    ),
    margin=0.005,
    margin_reason="two runs of one setting that label other pictures differ by up to 0.007",
    notes=(
        "Denoising loss: mean squared error of the predicted noise on held-out pictures, each at the same five noise "
        "levels with the same noise for every run; 0 = the noise is known, 1 = its mean, 0, is predicted.",
        "Fréchet distance of samples to held-out pictures in the features of the suite's own classifier, trained on "
        "the same training pictures; it compares rows of this table and nothing else, and is no FID. The floor "
        "'training pictures' is what real pictures reach, and so a ceiling. Samples in class: share that the "
        "classifier puts into the class they were asked for.",
        "The classifier is also the teacher of the alignment auxiliary. Its training is outside the ledger, once for "
        "all runs; its forward pass in alignment is inside.",
    ),
    data_notes=(
        (
            "openmoji_classes",
            "Pictograms by OpenMoji, the open-source emoji and icon project, licence CC BY-SA 4.0; classes by Unicode "
            "range.",
        ),
    ),
    pictures=(SAMPLES_FILE,),
)


@dataclass(frozen=True)
class UNetKnobs:
    """Size of the U-Net."""

    fold: int = 2
    """side of the pixel blocks folded into channels before the first convolution; 1 = none"""
    widths: tuple[int, ...] = (32, 48)
    """channels at each resolution, halved from one to the next; multiples of 8"""
    drop_class: float = 0.1
    """share of training pictures whose class is hidden"""
    channels: Literal[3, 1] = 3
    """colour channels that are noised: 3, or 1 for grey pictures"""


@dataclass(frozen=True)
class Knobs(DataKnobs):
    """Diffusion case: noise prediction, with auxiliaries on the bottleneck."""

    AUXILIARIES: ClassVar[tuple[str, ...]] = auxiliary_names("diffusion")

    steps: int = 180
    """optimiser steps of every strategy in the equal-steps view"""
    validations: int = 3
    """validations during a run, evenly spaced, the last at its end"""
    data: str = "openmoji_classes"
    """the set: an adapter, a prepared folder, or data that need no code"""
    image_size: int = 32
    """height and width to which all pictures are brought, in pixels"""
    label_fraction: float = 1.0
    """share of training pictures whose class is known and that the primary task learns from, class by class"""
    images_per_batch: int = 32
    """pictures a step"""
    auxiliary_images_per_batch: int = 32
    """pictures of the auxiliary batch, shared by all auxiliaries with one noising and one down path"""
    auxiliaries: tuple[str, ...] = ("class", "clean_image", "alignment")
    """auxiliary tasks (`python -m benchmarks list` names them all)"""
    encoder: UNetKnobs = field(default_factory=UNetKnobs)
    """the denoiser"""
    classifier: VitKnobs = field(default_factory=lambda: VitKnobs(width=48))
    """the suite's own classifier: teacher of alignment, judge of samples"""
    classifier_steps: int = 300
    """optimiser steps of the classifier"""
    test_images: int = 256
    """held-out pictures whose denoising loss is measured, at most"""
    samples: int = 256
    """pictures sampled a run for the Fréchet distance, with the classes' shares in test"""
    sampling_steps: int = 12
    """DDIM steps a sample"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            "sampling_steps", self.sampling_steps, 1, 1000, "it is the number of denoising steps, for example 20"
        )
        check_range("samples", self.samples, 2, 1_000_000, "a distribution needs at least two")
        check_range("test_images", self.test_images, 1, 10_000_000)


FEW_LABELS = Knobs(
    steps=250,
    data="fashion_mnist",
    image_size=14,
    label_fraction=0.00093,  # five pictures a class
    auxiliaries=("unconditional",),
    encoder=UNetKnobs(fold=1, widths=(16, 32), channels=1),
    classifier=VitKnobs(patch_size=7, width=48),
    test_images=512,
    # The best of eight trials each on validation, three seeds a trial, at 44 % of full MTL's FLOPs
    # (results/published/diffusion/tuning.md).
    settings=(
        SingleTask(1.6e-2, weight_decay=1.0),
        MultiTask(8e-3, 2.0),
        Diminishing(1.6e-2, 0.5, rate=5.0, shape=0.25),
        Switching(8e-3, 1.0, at=0.475),
        SampledDiminishing(8e-3, 1.0, rate=5.0, shape=1.0),
        Thinning(1.6e-2, 0.25, share=0.1),
    ),
)
# The best trials at the equal budget, one seed, searched by version 0.2. Two seeds, for the time.
OPENMOJI = Knobs(
    seeds=2,
    settings=(
        SingleTask(4e-3),
        MultiTask(4e-3, 0.3),
        Diminishing(4e-3, 1.0, rate=6.0, shape=2.0),
        Switching(4e-3, 1.0, at=0.3),
        SampledDiminishing(4e-3, 1.0, rate=6.0, shape=2.0),
    ),
)
RECIPES = {
    "default": FEW_LABELS,
    "openmoji": OPENMOJI,
    "fashion-mnist": replace(OPENMOJI, data="fashion_mnist", image_size=28),
}


def smoke(knobs: Knobs) -> Knobs:
    """The same in a minute: one seed, few steps, few samples."""
    return replace(
        knobs,
        steps=12,
        seeds=1,
        validations=1,
        budgets=(0.44,),
        classifier_steps=40,
        test_images=64,
        samples=36,
        sampling_steps=5,
    )
