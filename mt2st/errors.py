"""Errors that name the value, the place and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED_NAMES = 30  # an error is read in a terminal


class Mt2stError(ValueError):
    """Bad input or bad state that the user can mend.

    The message is one line: what was wrong, where, and how to put it right. Command lines print it without a
    traceback; library callers may catch it, or its base `ValueError`.
    """


def unknown_name(kind: str, name: str, known: Iterable[str], cure: str = "") -> Mt2stError:
    """The error for a name that is not known, with the nearest known ones.

    >>> str(unknown_name("schedule", "dimnish", ["diminish", "switch"]))
    "unknown schedule 'dimnish'; did you mean 'diminish'? Known: diminish, switch."
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(other) for other in near)}?" if near else "."
    if len(names) > _LISTED_NAMES:
        listing = f" {len(names)} are known, such as {', '.join(names[:_LISTED_NAMES])} …"
    else:
        listing = f" Known: {', '.join(names)}." if names else " None are known."
    return Mt2stError(f"unknown {kind} {name!r}{hint}{listing}{' ' + cure if cure else ''}")


def check_range(name: str, value: float, low: float, high: float, cure: str = "") -> None:
    """Raise `Mt2stError` unless `low` ≤ `value` ≤ `high` (NaN is never in range)."""
    if not low <= value <= high:
        raise Mt2stError(f"{name} = {value!r} is outside [{low:g}, {high:g}]{'; ' + cure if cure else ''}")
