"""Knobs that the two gloss cases, `representation` and `text`, have in common. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases.shared.data_knobs import LabelledDataKnobs
from mt2st.errors import Mt2stError, check_range


@dataclass(frozen=True)
class GlossKnobs(LabelledDataKnobs):
    """A labelled fraction of the glosses for the primary task, all of them for the auxiliaries."""

    data: str = "wordnet"
    """the set: an adapter, a prepared folder, or data that need no code"""
    label_fraction: float = 0.01
    """share of training glosses whose class may be used, class by class"""
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
