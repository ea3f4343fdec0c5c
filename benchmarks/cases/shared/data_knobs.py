"""Knobs that say which data a case runs on: the same in every case. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.strategies import SuiteKnobs
from mt2st.errors import Mt2stError, check_range


@dataclass(frozen=True)
class DataKnobs(SuiteKnobs):
    """Which set, which splits; a case gives `data` its default."""

    data: str = ""
    """the set: an adapter's name, file (my/pets.py) or module, a prepared folder, or data that need no code (hf:NAME, a
    table, a mapping.toml)
    """
    source: str = ""
    """folder that the adapter reads; empty = its own default"""
    map: str = ""
    """our fields → columns of data that need no code, such as image=img,question=q,answers=a"""
    options: tuple[str, ...] = ()
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
        check_range(
            "validation_fraction",
            self.validation_fraction,
            1e-6,
            0.9,
            "it is a share of the training split, for example 0.1",
        )
