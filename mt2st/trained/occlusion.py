"""Where a model looked: what its answer loses when a part of the picture is hidden.

    seen = looked_at(model, "picture.png", "what colour is it?")
    seen.answer, seen.score                    # "red", 0.97
    seen.drops                                 # [8, 8] float32: how much less probable "red" is without each patch

A window slides over the picture and covers it with the picture's mean colour; what falls is what the window held
(occlusion sensitivity, Zeiler and Fergus 2014, arXiv 1311.2901). It asks the model alone, by its answers, so it is the
same for convolutions, transformers and checkpoints of other libraries, and needs no gradients. What it does *not* see:
evidence that is there twice, for hiding one of two changes nothing; and why a model gives the answer that it gives to
everything else, for that owes nothing to any patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt2st.errors import Mt2stError, check_range, unknown_name

SIDE = 8
"""patches a side: 64 of them, 49 windows"""
_AT_ONCE = 64  # hidden pictures encoded together


@dataclass(frozen=True)
class LookedAt:
    """What an answer, or a likeness, owes to each patch.

    Attributes:
        answer: the answer, or the text that the picture was compared with.
        score: its probability ∈ [0, 1], or the cosine of picture and text.
        drops: [side, side] float32, rows from the top: how much lower the score is while the patch is hidden, averaged
            over the windows that hide it; below 0 = hiding it raises the score.
    """

    answer: str
    score: float
    drops: np.ndarray

    @property
    def strongest(self) -> tuple[int, int]:
        """Row and column, from 0, of the patch whose loss lowers the score most."""
        row, column = np.unravel_index(int(self.drops.argmax()), self.drops.shape)
        return int(row), int(column)


def occlusion(score: Callable[[Tensor], np.ndarray], pixels: Tensor, side: int = SIDE) -> tuple[float, np.ndarray]:
    """Score of a picture, and by how much hiding each patch lowers it.

    A window covers 2 × 2 patches and moves by one, so each patch is hidden by up to four windows; their mean is its
    drop.

    Args:
        score: pictures uint8 [B, 3, S, S] → their scores [B].
        pixels: uint8 [3, S, S].
        side: patches a side, from 2 to S.

    Returns:
        The score of the whole picture, and the drops [side, side] float32.

    Raises:
        Mt2stError: `side` is out of range.
    """
    size = pixels.shape[-1]
    check_range("side", side, 2, size, "a patch is at least a pixel, and a window two patches")
    edges = np.linspace(0, size, side + 1).round().astype(int)
    fill = pixels.float().mean((1, 2)).round().to(torch.uint8)[:, None, None]  # [3, 1, 1]
    places = [(row, column) for row in range(side - 1) for column in range(side - 1)]
    whole = float(score(pixels[None])[0])
    drops, windows = np.zeros((side, side)), np.zeros((side, side))
    for start in range(0, len(places), _AT_ONCE):
        some = places[start : start + _AT_ONCE]
        hidden = pixels.repeat(len(some), 1, 1, 1)  # [B, 3, S, S]
        for picture, (row, column) in zip(hidden, some, strict=True):
            picture[:, edges[row] : edges[row + 2], edges[column] : edges[column + 2]] = fill
        for (row, column), found in zip(some, score(hidden), strict=True):
            drops[row : row + 2, column : column + 2] += whole - float(found)
            windows[row : row + 2, column : column + 2] += 1
    return whole, (drops / windows).astype(np.float32)


def looked_at(model: Any, image: Any, question: str, answer: str = "", *, side: int = SIDE) -> LookedAt:
    """Which patches of a picture an answer owes its probability to.

    Args:
        model: a `VisionLanguageModel` that answers questions.
        image: as for its `pixels`.
        question: the question.
        answer: one of its answers; "" = the most probable one.
        side: patches a side.

    Raises:
        Mt2stError: the model does not answer questions, an unknown answer, or the picture cannot be read.
    """
    (pixels,) = model.pixels([image])
    if not answer:
        answer = model.answer(pixels, question, top=1)[0].text
    if model.answers and answer not in model.answers:
        raise unknown_name("answer", answer, model.answers)
    place = model.answers.index(answer) if model.answers else 0

    def score(pictures: Tensor) -> np.ndarray:
        found: np.ndarray = model.answer_probabilities(list(pictures), [question] * len(pictures))[:, place]
        return found

    return LookedAt(answer, *occlusion(score, pixels, side))


def looked_at_for_text(model: Any, image: Any, text: str, *, side: int = SIDE) -> LookedAt:
    """Which patches of a picture its likeness to a text comes from; arguments and errors as for `looked_at`."""
    if not text.strip():
        raise Mt2stError("no text to compare the picture with; give one")
    (pixels,) = model.pixels([image])
    wanted = model.embed_texts([text])[0]

    def score(pictures: Tensor) -> np.ndarray:
        found: np.ndarray = model.embed_images(list(pictures)) @ wanted
        return found

    return LookedAt(text, *occlusion(score, pixels, side))
