"""What a checkpoint as it came makes of pictures and texts, as inputs of simple models.

Shapes: N pictures or texts, C and K components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from benchmarks.cases.shared.ridge import PixelComponents, TextComponents
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import pixels_tensor
from mt2st.encoders.fine_tuning import Part
from mt2st.encoders.freezing import entries
from mt2st.encoders.vision_language import VisionLanguageEncoder

_AT_ONCE = 256
_FITTED = 10_000  # pictures or texts, at most, that components are found on


def frozen_features(
    knobs: EncoderKnobs,
    encoder: VisionLanguageEncoder,
    fresh: Callable[[], VisionLanguageEncoder],
    tokenize: Callable[[list[str]], Tensor],
    split: PreparedSplit,
    texts: Sequence[str],
    components: tuple[int, int],
) -> FrozenFeatures | None:
    """What simple models see of an encoder with a pretrained half, with the weights that it came with; else None.

    Args:
        encoder: a run's, trained or not. Of it a half is used that is frozen whole, because its outputs are kept.
        fresh: makes the same encoder untrained, for a half that is trained; called where it is needed.
        split, texts, components: as in `FrozenFeatures`.
    """
    whole = {entry.part for entry in entries(knobs.freeze) if entry.whole and not entry.timed}
    halves = {name: part for name, part in encoder.parts().items() if name in ("image", "text") and part.pretrained}
    if not halves:
        return None
    if not set(halves) <= whole:
        untrained = fresh().parts()
        halves = {name: part if name in whole else untrained[name] for name, part in halves.items()}
    return FrozenFeatures(halves, tokenize, split, texts, components)


class FrozenFeatures:
    """Principal components of embeddings; of pixels and of words (TF-IDF) where that half is no checkpoint.

    Args:
        halves: "image", "text" or both.
        tokenize: texts → token ids.
        split: its pictures are what components are found on; texts: likewise.
        components: C of pictures and K of texts, at most.
    """

    def __init__(
        self,
        halves: dict[str, Part],
        tokenize: Callable[[list[str]], Tensor],
        split: PreparedSplit,
        texts: Sequence[str],
        components: tuple[int, int],
    ) -> None:
        self._halves, self._tokenize = halves, tokenize
        image_components, text_components = components
        self._pixels = None if "image" in halves else PixelComponents(split, image_components)
        if self._pixels is None:
            rows = np.unique(np.linspace(0, split.num_images - 1, min(split.num_images, _FITTED)).astype(np.int64))
            self._images = _Components(self._embedded_images(split, rows), image_components)
        distinct = sorted(set(texts))
        distinct = distinct[:: -(-len(distinct) // _FITTED)]
        self._words = None if "text" in halves else TextComponents(distinct, text_components)
        if self._words is None:
            self._texts = _Components(self._embedded_texts(distinct), text_components)

    def images(self, split: PreparedSplit) -> np.ndarray:
        """[split.num_images, C], float32."""
        if self._pixels is not None:
            return self._pixels.of(split)
        return self._images(self._embedded_images(split, np.arange(split.num_images)))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """[len(texts), K], float32; each distinct text is embedded once."""
        distinct, places = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)
        given = [str(text) for text in distinct]
        found = self._words.of(given) if self._words is not None else self._texts(self._embedded_texts(given))
        return found[places]

    def _embedded_images(self, split: PreparedSplit, rows: np.ndarray) -> np.ndarray:
        parts = (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))
        return _embedded(self._halves["image"], (pixels_tensor(split, part) for part in parts))

    def _embedded_texts(self, texts: list[str]) -> np.ndarray:
        parts = (texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE))
        return _embedded(self._halves["text"], (self._tokenize(part) for part in parts))


class _Components:
    """Principal components of embeddings, divided by one number, so that a penalty means the same for every model."""

    def __init__(self, embeddings: np.ndarray, components: int) -> None:
        self._mean = embeddings.mean(0)
        _, lengths, directions = np.linalg.svd(embeddings - self._mean, full_matrices=False)
        self._directions = directions[:components].T  # [E, C]
        size = float(np.sqrt((lengths[:components] ** 2).sum() / (len(embeddings) * self._directions.shape[1])))
        self._scale = max(size, 1e-12)

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        return np.asarray((embeddings - self._mean) @ self._directions / self._scale, dtype=np.float32)


@torch.no_grad()
def _embedded(part: Part, inputs: Iterator[Tensor]) -> np.ndarray:
    """The part's embeddings of all inputs, [N, E] float32; the part stays in the mode that it was in."""
    assert part.source is not None  # both halves of towers name theirs
    method = getattr(part.source.owner, part.source.method)
    device = next(part.module.parameters()).device
    training = part.module.training
    part.module.eval()
    found = [method(some.to(device)).embedding.float().cpu().numpy() for some in inputs]
    part.module.train(training)
    return np.concatenate(found)
