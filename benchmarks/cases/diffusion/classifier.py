"""The suite's own classifier of pictures: the image case's encoder trained on all labels.

Its features measure samples and teach alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from benchmarks.cases.shared.encoder_knobs import VitKnobs
from benchmarks.cases.shared.pictures import build_image_encoder, items_of
from mt2st.data.splits import PreparedSplit
from mt2st.data.streams import ItemStream
from mt2st.encoders.image_transformer import ImageEncoder
from mt2st.errors import Mt2stError
from mt2st.files import atomic_path, content_hash
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.classification import ClassificationObjective
from mt2st.predict import Classes, predict_classes
from mt2st.training.trainer import TrainConfig, Trainer

_FORMAT = 1


class PictureClassifier:
    """A frozen classifier.

    Attributes:
        encoder: its image encoder.
        training_flops: what its training cost; 0 where it was read from disk.
    """

    def __init__(self, encoder: ImageEncoder, objective: ClassificationObjective, training_flops: int) -> None:
        self.encoder, self.objective, self.training_flops = encoder, objective, training_flops

    @classmethod
    def trained(
        cls,
        split: PreparedSplit,
        codes: np.ndarray,
        names: Sequence[str],
        *,
        sizes: VitKnobs,
        steps: int,
        folder: Path,
        data_hash: str,
    ) -> PictureClassifier:
        """A classifier of `split` with class numbers `codes`, trained with seed 0.

        Kept in `folder` and read from there the next time.
        """
        encoder = build_image_encoder(sizes, split.image_size, 0)
        objective = ClassificationObjective(encoder.width, len(names))
        threads = torch.get_num_threads()  # another number rounds otherwise, and trains another classifier
        key = content_hash([_FORMAT, data_hash, repr(sizes), steps, list(names), len(codes), threads])
        path = folder / f"classifier-{key[:12]}.safetensors"
        both = torch.nn.ModuleDict({"encoder": encoder, "objective": objective})
        if path.is_file():
            try:
                both.load_state_dict(load_file(path))
            except (SafetensorError, RuntimeError) as error:
                raise Mt2stError(
                    f"{path} is damaged ({' '.join(str(error).split())[:200]}); delete it, it will be trained again"
                ) from None
            return cls(encoder, objective, 0)
        mixture = MT2ST(Task(objective))
        config = TrainConfig(total_steps=steps, learning_rate=2e-3)
        result = Trainer(encoder, mixture, {"primary": items_of(split, codes, 64)}, config).fit()
        folder.mkdir(parents=True, exist_ok=True)
        both.cpu()
        with atomic_path(path) as partial:
            save_file(both.state_dict(), partial)
        return cls(encoder, objective, result.ledger.total)

    def features(self, pixels: torch.Tensor | PreparedSplit) -> np.ndarray:
        """Embeddings [N, D] of pictures [N, 3, S, S] uint8, or of a split's."""
        return self._found(pixels).embeddings

    def accuracy(self, pixels: torch.Tensor, codes: np.ndarray) -> float:
        """Share of pictures [N, 3, S, S] uint8 that it puts into the classes `codes` [N]."""
        return float((self._found(pixels).prediction == codes).mean())

    def _found(self, pixels: torch.Tensor | PreparedSplit) -> Classes:
        if isinstance(pixels, torch.Tensor):
            stream = ItemStream({"pixels": pixels}, items_per_batch=1)
        else:
            stream = ItemStream({}, split=pixels, items_per_batch=1)
        return predict_classes(self.encoder, self.objective, stream.in_order())


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½) of Gaussians fitted to [n, D] and [m, D]; ≥ 0.

    tr((Σ₁Σ₂)^½) is the sum of the singular values of L₁ᵀ·L₂ for any L with L·Lᵀ = Σ, and centred features / √(n − 1)
    are such: no matrix square root of a product, which is where the usual formula loses digits.

    Raises:
        Mt2stError: fewer than two rows, or different widths.
    """
    if min(len(one), len(other)) < 2 or one.shape[1:] != other.shape[1:]:
        raise Mt2stError(
            f"Fréchet distance of features {one.shape} and {other.shape}: give at least two rows each, of one width"
        )
    first, second = (features.astype(np.float64) for features in (one, other))
    means = first.mean(0) - second.mean(0)
    roots = [np.asarray(np.linalg.qr((part - part.mean(0)) / np.sqrt(len(part) - 1))[1]) for part in (first, second)]
    overlap = np.linalg.norm(roots[0] @ roots[1].T, "nuc")
    return max(0.0, float(means @ means + sum((root**2).sum() for root in roots) - 2 * overlap))
