"""Knobs that say which data a case runs on: the same in every case. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases.shared.suite_knobs import SuiteKnobs, condition
from mt2st.errors import Mt2stError, check_range


@dataclass(frozen=True)
class DataKnobs(SuiteKnobs):
    """Which set, which splits; a case gives `data` its default."""

    data: str = ""
    """the set: an adapter's name, file or module, a prepared folder, or data without code (hf:NAME, a table, a toml)"""
    source: str = ""
    """folder that the adapter reads; empty = its own default"""
    map: str = ""
    """our fields → columns of data that need no code, such as image=img,question=q,answers=a"""
    options: tuple[str, ...] = condition(default=())
    """the adapter's own options, such as other_counts=yes"""
    train_split: str = "train"
    """split to train on"""
    test_split: str = "test"
    """split to test on"""
    validation_fraction: float = 0.1
    """share of the training split's items carved out for validation"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in self.options:
            if not option.partition("=")[0] or "=" not in option:
                raise Mt2stError(f"options: {option!r} is not NAME=VALUE; for example --options other_counts=yes")
        cure = "it is a share of the training split, for example 0.1"
        check_range("validation_fraction", self.validation_fraction, 1e-6, 0.9, cure)


@dataclass(frozen=True)
class LabelledDataKnobs(DataKnobs):
    """Data of which the primary task may use a labelled share; a case says of what."""

    label_fraction: float = 0.1
    """share of the training items whose labels may be used"""

    def __post_init__(self) -> None:
        super().__post_init__()
        cure = "it is a share of the training items, for example 0.1"
        check_range("label_fraction", self.label_fraction, 1e-6, 1.0, cure)
