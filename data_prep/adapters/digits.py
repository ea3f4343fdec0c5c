"""Handwritten digits of scikit-learn: 1,797 grey pictures of 8×8, ten classes; nothing to fetch.

They are the test part of UCI's "Optical Recognition of Handwritten Digits", ordered by writer. The last 360 are test
here, so that their writers were mostly not seen in training. Values 0 … 16 are scaled to 0 … 255.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from mt2st.data.card import DatasetCard, Example

TEST_IMAGES = 360

CARD = DatasetCard(
    name="digits",
    title="scikit-learn digits",
    task="classification",
    source="package scikit-learn; archive.ics.uci.edu/dataset/80",
    revision="as in scikit-learn",
    licence="CC-BY-4.0",
    splits={"train": 1797 - TEST_IMAGES, "test": TEST_IMAGES},
    main_metric="accuracy",
    paper="Alpaydin and Kaynak, 1998",
    notes="Checked here against the full set. The split is ours: the last 360 images.",
)


def fingerprint() -> str:
    """The version of the package that brings the images."""
    return f"scikit-learn {version('scikit-learn')}"


def examples(split: str) -> Iterator[Example]:
    """The pictures of `split` in their own order."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    first, last = (0, 1797 - TEST_IMAGES) if split == "train" else (1797 - TEST_IMAGES, 1797)
    for number in range(first, last):
        pixels = (digits.images[number] * (255 / 16)).round().astype("uint8")
        yield Example(image=Image.fromarray(pixels), image_id=str(number), label=str(digits.target[number]))
