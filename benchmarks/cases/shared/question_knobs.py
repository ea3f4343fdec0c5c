"""What the knobs of cases that ask "the same class?" must keep. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mt2st.errors import Mt2stError


def check_question(question: str, auxiliaries: Collection[str], classes: str) -> None:
    """Raise `Mt2stError` if the primary task and an auxiliary would both learn the classes.

    Args:
        classes: the auxiliary that learns them.
    """
    if question == "class" and classes in auxiliaries:
        raise Mt2stError(
            f"auxiliaries: with question = class the primary task learns the classes; leave {classes} out, or set "
            "--question same_class"
        )


def check_pairs(knobs: Any) -> None:
    """Raise `Mt2stError` if `labelled_pairs` or `validation_pairs` make no block of four."""
    for name in ("labelled_pairs", "validation_pairs"):
        if getattr(knobs, name) < 4:
            raise Mt2stError(f"{name} = {getattr(knobs, name)} must be ≥ 4; pairs come in blocks of four")


def check_even(name: str, value: int, items: str) -> None:
    """Raise `Mt2stError` if a batch of `value` items holds half a pair."""
    if value % 2:
        raise Mt2stError(f"{name} = {value} must be even; two {items} make a pair")
