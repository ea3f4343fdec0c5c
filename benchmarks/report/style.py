"""One table of looks for every picture: each strategy has a colour and a marker, the same wherever it is drawn.

A look is found by position. The built-in strategies get the first looks in the order of their table, whatever else is
shown. Others get the next free ones in the order of their names. The first 14 markers differ as well, so that pictures
can be read without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Look(NamedTuple):
    """How a strategy is drawn: colour as "#rrggbb", and a marker of matplotlib."""

    colour: str
    marker: str


# Okabe and Ito's colours first, which people with any kind of colour blindness can tell apart, then others. Filled
# markers only: the cost picture draws a view filled or hollow.
LOOKS = (
    Look("#000000", "o"),
    Look("#0072B2", "s"),
    Look("#E69F00", "^"),
    Look("#D55E00", "D"),
    Look("#009E73", "v"),
    Look("#CC79A7", "P"),
    Look("#56B4E9", "X"),
    Look("#777777", "*"),
    Look("#8C6D00", "<"),
    Look("#5D3A9B", ">"),
    Look("#7A1F1F", "p"),
    Look("#00524D", "d"),
    Look("#9ACD32", "h"),
    Look("#FF9DA7", "8"),
    Look("#17BECF", "o"),
    Look("#C2185B", "s"),
    Look("#6B8E23", "^"),
    Look("#3F51B5", "v"),
)
FRONT_COLOUR = "#999999"  # of a Pareto front


def looks(strategies: Sequence[str], known: Sequence[str]) -> dict[str, Look]:
    """The look of each strategy.

    Args:
        strategies: names that a picture shows, in any order.
        known: the built-in strategies, in the order of their table.

    Returns:
        name → look, for `known` and `strategies`. Beyond `LOOKS` colours come again, with the next marker.
    """
    names = [*dict.fromkeys(known), *sorted(set(strategies) - set(known))]
    return {name: _look(place) for place, name in enumerate(names)}


def _look(place: int) -> Look:
    turn, index = divmod(place, len(LOOKS))
    return Look(LOOKS[index].colour, LOOKS[(index + turn) % len(LOOKS)].marker)
