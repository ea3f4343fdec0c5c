"""A trained model of single pictures: the class of one, or whether two are of one class; embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mt2st.data.images import DEFAULT_MAX_PIXELS
from mt2st.encoders.architecture import IMAGE
from mt2st.encoders.image_transformer import ImageConfig, ImageEncoder
from mt2st.trained.asking import AskedModel, PossibleClass, paired, unit_rows, with_head
from mt2st.trained.description import Description, towers_folder
from mt2st.trained.pictures import pixels_of


class ImageModel(AskedModel):
    """A trained `ImageEncoder` and its head.

    Pictures are paths, encoded bytes, PIL images, or uint8 arrays [H, W, 3] or [H, W].

    Attributes:
        image_size: side of the square that pictures are brought to, in pixels.
    """

    def __init__(self, encoder: Any, head: Any, description: Description) -> None:
        super().__init__(encoder, head, description)
        self.image_size, self._fit = int(encoder.image_size), str(description.build["fit"])

    def pixels(self, pictures: Sequence[Any], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
        """Pictures as this model sees them, uint8 [N, 3, image_size, image_size].

        Raises:
            Mt2stError: one cannot be read; it is named.
        """
        return pixels_of(pictures, self.image_size, self._fit, max_pixels=max_pixels)

    def same(self, image: Any, other: Any) -> float:
        """Probability ∈ [0, 1] that two pictures are of one class.

        Raises:
            Mt2stError: as `same_all`.
        """
        return float(self.same_all([image], [other])[0])

    def same_all(self, images: Sequence[Any], others: Sequence[Any], *, batch_size: int = 256) -> np.ndarray:
        """Probability [P] float32 that `images[i]` and `others[i]` are of one class.

        Raises:
            Mt2stError: the model was trained for another question, a picture cannot be read, or numbers differ.
        """
        paired(images, others)
        return self._compared(self._encoded(images, batch_size), self._encoded(others, batch_size))

    def classify(self, image: Any, *, top: int = 5) -> list[PossibleClass]:
        """The `top` most probable classes of a picture, best first.

        Raises:
            Mt2stError: as `classify_all`.
        """
        return self.classify_all([image], top=top)[0]

    def classify_all(self, images: Iterable[Any], *, top: int = 1, batch_size: int = 256) -> list[list[PossibleClass]]:
        """The `top` most probable classes of each picture, best first.

        Raises:
            Mt2stError: the model was trained for another question, or a picture cannot be read.
        """
        return self._classified(self._encoded(images, batch_size), top)

    def embed_images(self, images: Iterable[Any], *, batch_size: int = 256) -> np.ndarray:
        """Embeddings [N, D] float32 of pictures, unit length, `batch_size` at a time."""
        return unit_rows(self._encoded(images, batch_size))

    def _encoded(self, images: Iterable[Any], batch_size: int) -> Tensor:
        return self._raw(images, lambda some: {"pixels": self.pixels(some)}, batch_size)


def restored(description: Description) -> ImageModel:
    """The model of `model.json`: `build` holds "small", the fields of `ImageConfig`; without it the folder says how
    the checkpoint is built.

    Raises:
        Mt2stError: no model that this version can build, or the weights are those of another one.
    """

    def build_encoder(build: Mapping[str, Any]) -> ImageEncoder:
        if (folder := towers_folder(description)) is not None:
            return ImageEncoder.pretrained(str(folder / IMAGE), weights=False)
        return ImageEncoder.small(ImageConfig(**build["small"]))

    return ImageModel(*with_head(description, build_encoder), description)
