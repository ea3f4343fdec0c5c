"""A trained denoiser: pictures of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mt2st.encoders.denoiser import Denoiser, DenoiserConfig
from mt2st.errors import Mt2stError, unknown_name
from mt2st.trained.description import Description
from mt2st.trained.weights import load_parts

_AT_ONCE = 128  # as the suite draws its samples


class DiffusionModel:
    """A trained `Denoiser`.

    Attributes:
        encoder: the denoiser, in evaluation mode.
        classes: the labels that it makes pictures of.
        image_size: side of the pictures, in pixels.
        about: run id, benchmark, strategy, seed.
        fingerprint: SHA-256 (hex) of all that decides its numbers.
    """

    def __init__(self, encoder: Denoiser, description: Description) -> None:
        self.encoder = encoder.eval()
        self.classes = tuple(str(name) for name in description.build["classes"])
        self.image_size = encoder.config.image_size
        self.about, self.fingerprint = dict(description.about), description.fingerprint
        self.sampling_steps = int(description.build["sampling_steps"])

    def to(self, device: torch.device | str) -> DiffusionModel:
        """Move the model, in place; returns it."""
        self.encoder.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    def generate(self, labels: Sequence[str], *, seed: int = 0, steps: int | None = None) -> np.ndarray:
        """A picture of each label, uint8 [N, image_size, image_size, 3].

        The same model, labels, seed and steps give the same pictures on the same machine.

        Args:
            labels: N of `classes`; name one several times for several pictures of it.
            seed: of the noise that pictures are made from.
            steps: denoising steps; None = as in the suite's own test.

        Raises:
            Mt2stError: an unknown label (with the nearest ones), or steps out of range.
        """
        if isinstance(labels, str):
            labels = [labels]
        for label in labels:
            if label not in self.classes:
                raise unknown_name("label", label, self.classes)
        codes = torch.tensor([self.classes.index(label) for label in labels], dtype=torch.int64)
        parts = [np.zeros((0, self.image_size, self.image_size, 3), np.uint8)]
        for number, part in enumerate(codes.split(_AT_ONCE)):
            if len(part):
                found = self.encoder.sample(part, steps=steps or self.sampling_steps, seed=seed + number)
                parts.append(found.permute(0, 2, 3, 1).numpy())
        return np.concatenate(parts)


def restored(description: Description) -> DiffusionModel:
    """The model of `model.json`: `build` holds "denoiser", the fields of `DenoiserConfig`, "classes" and
    "sampling_steps".

    Raises:
        Mt2stError: no model that this version can build, the weights are those of another one, or diffusers is missing.
    """
    try:
        sizes: dict[str, Any] = dict(description.build["denoiser"])
        encoder = Denoiser(DenoiserConfig(**{**sizes, "widths": tuple(sizes["widths"])}))
        load_parts(description, encoder, None)
        return DiffusionModel(encoder, description)
    except (LookupError, TypeError, ValueError) as error:
        raise Mt2stError(f"{description.folder} describes no model that this version can build ({error!r})") from None
