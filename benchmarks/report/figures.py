"""What every picture shares: fonts and lines, a figure without a display, an atomic PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mt2st.files import atomic_path

_RC = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
}
DPI = 150


def safe(text: str) -> str:
    """`text` with dollar signs that matplotlib would take for mathematics escaped."""
    return text.replace("$", r"\$")


def style() -> Any:
    """The context in which pictures are drawn."""
    return rc_context(_RC)


def figure_of(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, atomically."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", facecolor="white")
