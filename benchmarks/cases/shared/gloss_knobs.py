"""Knobs that the two gloss cases, `representation` and `text`, have in common. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.cases.shared.data_knobs import LabelledDataKnobs
from benchmarks.cases.shared.question_knobs import check_pairs, check_question
from mt2st.errors import Mt2stError, check_range


@dataclass(frozen=True)
class GlossKnobs(LabelledDataKnobs):
    """Few pairs or glosses with an answer for the primary task, all glosses for the auxiliaries."""

    data: str = "wordnet"
    """the set: an adapter, a prepared folder, or data that need no code"""
    question: Literal["same_class", "class"] = "class"
    """what the primary task asks: are both glosses of a pair of one supersense, or of which supersense is a gloss"""
    labelled_pairs: int = 2000
    """pairs of training glosses whose answer may be used (question same_class)"""
    validation_pairs: int = 2000
    """pairs of validation glosses, at most (question same_class)"""
    label_fraction: float = 0.01
    """share of training glosses whose class may be used, class by class (question class)"""
    training_share: float = 1.0
    """share of the training split that is used at all, with or without labels"""
    validation_fraction: float = 0.02
    """share of the training split's glosses carved out for validation"""
    lemma_length: int = 4
    """tokens a lemma is cut to"""

    def __post_init__(self) -> None:
        super().__post_init__()
        cure = "it is a share of the training split; 1 = all of it"
        check_range("training_share", self.training_share, 1e-6, 1.0, cure)
        if self.lemma_length < 1:
            raise Mt2stError(f"lemma_length = {self.lemma_length} must be ≥ 1")
        check_question(self.question, self.auxiliaries, "supersense")
        if self.question == "same_class":
            check_pairs(self)
