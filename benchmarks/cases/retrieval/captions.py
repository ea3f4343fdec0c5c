"""The captions of a split that ask for their images."""

from __future__ import annotations

import numpy as np

from mt2st.data.prepared import PreparedSplit

MAIN_CAPTION = "main-caption"  # a card's protocol: each image's first caption asks, the others are further texts


class Captions:
    """The captions `rows` of a split, which ask for their images."""

    def __init__(self, split: PreparedSplit, rows: np.ndarray) -> None:
        texts = split.caption_texts()
        self.split = split
        self.rows = rows
        self.texts = [texts[row] for row in rows]
        self.images = split.caption_images()[rows]

    def bases(self) -> list[str]:
        """What each caption's image is a variant of; its own id where the set names no groups."""
        groups, ids = self.split.extra_values("group"), self.split.image_ids()
        return [f"group {groups[row]}" if groups[row] is not None else f"image {ids[row]}" for row in self.images]


def captions_of(split: PreparedSplit, main_only: bool) -> Captions:
    """The captions of `split`, or the first of each image; images without a caption are left out of the gallery."""
    split = split.subset(np.unique(split.caption_images())) if split.num_images else split
    images = split.caption_images()
    rows = np.unique(images, return_index=True)[1] if main_only else np.arange(len(images))
    return Captions(split, rows)


def words(text: str) -> list[str]:
    """Lower-case words of a caption, punctuation aside."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
