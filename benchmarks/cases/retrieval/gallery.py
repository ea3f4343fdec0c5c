"""The gallery picture: queries, their five best images, hits marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mt2st.data.splits import PreparedSplit
from mt2st.files import atomic_path


def draw_gallery(
    path: Path,
    split: PreparedSplit,
    texts: list[str],
    text_images: np.ndarray,
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    *,
    queries: int = 12,
    top: int = 5,
) -> None:
    """Draw `queries` evenly spaced text queries, each with its own image and its `top` best images.

    A hit has a green frame.

    Args:
        path: the PNG to write.
        text_images: [C] int64, the image row each text belongs to.
        image_embeddings: [N, E]; text_embeddings: [C, E], both of unit length.
    """
    from matplotlib.figure import Figure

    chosen = np.linspace(0, len(texts) - 1, min(queries, len(texts))).astype(int)
    top = min(top, len(image_embeddings))
    best = np.argsort(-(text_embeddings[chosen] @ image_embeddings.T), axis=1, kind="stable")[:, :top]
    columns = 2 if len(chosen) > 1 else 1
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(6.4 * columns, 1.15 * rows), layout="constrained")
    axes = figure.subplots(rows, columns * (top + 2), squeeze=False, width_ratios=([2.2] + [1] * (top + 1)) * columns)
    for axis in axes.flat:
        axis.axis("off")
    for place, query in enumerate(chosen):
        row, column = place % rows, (place // rows) * (top + 2)
        axes[row, column].text(
            1.0, 0.5, _wrapped(texts[query]), ha="right", va="center", fontsize=8, transform=axes[row, column].transAxes
        )
        shown = [int(text_images[query]), *map(int, best[place])]
        pixels = split.pixels(np.array(shown))
        for offset, image in enumerate(shown):
            axis = axes[row, column + 1 + offset]
            axis.axis("on")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.imshow(pixels[offset], interpolation="nearest")
            hit = offset > 0 and image == shown[0]
            for spine in axis.spines.values():
                spine.set_color("#009E73" if hit else "#999999" if offset else "#0072B2")
                spine.set_linewidth(3 if hit else 2 if offset == 0 else 0.5)
    figure.suptitle("query · its image (blue) · best five, hits green", fontsize=9)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _wrapped(text: str, width: int = 22) -> str:
    """`text` as plain letters (never as a formula), broken into lines."""
    import textwrap

    return "\n".join(textwrap.wrap(text.replace("$", r"\$"), width)[:3])
