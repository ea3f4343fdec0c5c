"""A trained encoder over a whole split: predicted answers, or embeddings. Every image is encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt2st.batch import Batch
from mt2st.data.splits import PreparedSplit
from mt2st.data.streams import pixels_tensor


@dataclass(frozen=True)
class Answers:
    """Predicted answers of Q questions, in the split's order."""

    prediction: np.ndarray  # [Q] int64, position in the answer vocabulary
    confidence: np.ndarray  # [Q] float32, softmax probability of the prediction


@torch.inference_mode()
def predict_answers(
    encoder: Any, objective: Any, split: PreparedSplit, tokens: Tensor, *, images_per_batch: int = 256
) -> Answers:
    """Answer every question of `split`.

    Args:
        encoder: a `VisionLanguageEncoder`; its training mode is left as it was found.
        objective: an `AnswerObjective`.
        split: the questions and their images.
        tokens: [Q, T] int64, the tokenised questions of the split, in its order.
    """
    question_images = split.question_images()
    order = np.argsort(question_images, kind="stable")
    ordered_images = question_images[order]
    device = next(encoder.parameters()).device
    prediction = np.zeros(len(order), dtype=np.int64)
    confidence = np.zeros(len(order), dtype=np.float32)
    with _evaluation_mode(encoder, objective):
        for rows in _batches(np.unique(ordered_images), images_per_batch):
            low, high = np.searchsorted(ordered_images, [rows[0], rows[-1] + 1])
            questions = order[low:high]
            batch = {
                "pixels": pixels_tensor(split, rows).to(device),
                "question_tokens": tokens[torch.from_numpy(questions)].to(device),
                "question_image": torch.from_numpy(np.searchsorted(rows, ordered_images[low:high])).to(device),
            }
            best = objective.logits(encoder.features(batch)).float().softmax(-1).max(-1)
            prediction[questions] = best.indices.cpu().numpy()
            confidence[questions] = best.values.cpu().numpy()
    return Answers(prediction, confidence)


@dataclass(frozen=True)
class Classes:
    """Predicted classes of N items, in their order."""

    probabilities: np.ndarray  # [N, classes] float32
    embeddings: np.ndarray  # [N, D] float32, what the head saw

    @property
    def prediction(self) -> np.ndarray:
        """[N] int64."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """[N] float32, probability of the prediction."""
        return self.probabilities.max(1)


@torch.inference_mode()
def predict_classes(encoder: Any, objective: Any, batches: Iterable[Batch]) -> Classes:
    """Classify every item of `batches` (at least one batch).

    Args:
        encoder: an `nn.Module` with `features(batch)`; its training mode is left as it was found.
        objective: a `ClassificationObjective`.
    """
    device = next(encoder.parameters()).device
    probabilities, embeddings = [], []
    with _evaluation_mode(encoder, objective):
        for batch in batches:
            features = encoder.features({name: tensor.to(device) for name, tensor in batch.items()})
            probabilities.append(objective.logits(features).float().softmax(-1).cpu().numpy())
            embeddings.append(getattr(features, objective.embedding).float().cpu().numpy())
    return Classes(np.concatenate(probabilities), np.concatenate(embeddings))


@torch.inference_mode()
def predict_pairs(encoder: Any, objective: Any, batches: Iterable[Batch], pairs: np.ndarray) -> np.ndarray:
    """Probability [P] float32 that both items of a pair are of one class; every item is encoded once.

    Args:
        encoder: an `nn.Module` with `features(batch)`; its training mode is left as it was found.
        objective: a `SameClassObjective`.
        batches: all items, in order.
        pairs: [P, 2] int64, rows of the items.
    """
    device = next(encoder.parameters()).device
    with _evaluation_mode(encoder, objective):
        found = torch.cat(
            [
                encoder.features({name: tensor.to(device) for name, tensor in batch.items()}).embedding
                for batch in batches
            ]
        )
        first, second = (found[torch.from_numpy(side).to(device)] for side in pairs.T.copy())
        probabilities: np.ndarray = objective.compare(first, second).float().sigmoid().cpu().numpy()
    return probabilities


def embed_split(
    encoder: Any, split: PreparedSplit, tokens: Tensor, *, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of all images [N, E] and captions [C, E] of `split`, float32.

    Args:
        tokens: [C, T] int64, the tokenised captions of the split, in its order.
    """
    images = embed_images(encoder, split, np.arange(split.num_images), batch_size=batch_size)
    return images, embed_texts(encoder, tokens, batch_size=batch_size)


@torch.inference_mode()
def embed_images(encoder: Any, split: PreparedSplit, rows: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """Unit embeddings [len(rows), E] of the images `rows` of `split`, float32, computed `batch_size` at a time."""
    device = next(encoder.parameters()).device
    with _evaluation_mode(encoder):
        found = [
            encoder.features({"pixels": pixels_tensor(split, some).to(device)}).image_embedding.cpu().numpy()
            for some in _batches(rows, batch_size)
        ]
    return _joined(found, encoder.towers.embedding_width)


@torch.inference_mode()
def embed_texts(encoder: Any, tokens: Tensor, *, batch_size: int = 256) -> np.ndarray:
    """Unit embeddings [C, E] of the tokenised texts `tokens` [C, T], float32, computed `batch_size` at a time."""
    device = next(encoder.parameters()).device
    with _evaluation_mode(encoder):
        found = [
            encoder.features({"caption_tokens": some.to(device)}).caption_embedding.cpu().numpy()
            for some in tokens.split(batch_size)
            if len(some)
        ]
    return _joined(found, encoder.towers.embedding_width)


def _joined(parts: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate([np.zeros((0, width), np.float32), *parts]).astype(np.float32, copy=False)


def _batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class _evaluation_mode:  # noqa: N801 - used as a context manager, like torch.inference_mode
    """Modules in evaluation mode inside, each submodule as it was outside."""

    def __init__(self, *modules: Any) -> None:
        self.modules = modules

    def __enter__(self) -> None:
        self.before = [(part, part.training) for module in self.modules for part in module.modules()]
        for module in self.modules:
            module.eval()

    def __exit__(self, *exc_info: Any) -> None:
        for part, training in self.before:
            part.training = training
