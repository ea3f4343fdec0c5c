"""What models of single pictures and of texts share: a class, or whether two items are of one class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mt2st.encoders.fine_tuning import fine_tune
from mt2st.errors import Mt2stError, unknown_name
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.same_class import SameClassObjective
from mt2st.trained.description import Description
from mt2st.trained.pictures import in_batches
from mt2st.trained.weights import load_parts

QUESTIONS = ("same_class", "class")


@dataclass(frozen=True)
class PossibleClass:
    """A class and its probability ∈ [0, 1] among all classes that the model knows."""

    name: str
    probability: float


class AskedModel:
    """An encoder of items, and the head of the question that it was trained for.

    Attributes:
        encoder: in evaluation mode; `features(batch).embedding` is what the head sees.
        question: "same_class" or "class".
        classes: names of the classes of the training data; only a model of "class" tells them apart.
        about: run id, benchmark, strategy, seed.
        fingerprint: SHA-256 (hex) of all that decides its numbers.
    """

    def __init__(self, encoder: Any, head: Any, description: Description) -> None:
        self.encoder = encoder.eval()
        self.about, self.fingerprint = dict(description.about), description.fingerprint
        self.question = str(description.build["question"])
        self.classes = tuple(str(name) for name in description.build["classes"])
        self._head = head.eval()

    def to(self, device: torch.device | str) -> Any:
        """Move the model, in place; returns it."""
        self.encoder.to(device)
        self._head.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    @property
    def embedding_width(self) -> int:
        """D of the embeddings."""
        return int(self.encoder.width)

    @torch.inference_mode()
    def _raw(self, items: Iterable[Any], batch_of: Callable[[list[Any]], dict[str, Tensor]], batch_size: int) -> Tensor:
        """Embeddings [N, D] as the head sees them, on the model's device."""
        parts = [torch.zeros(0, self.embedding_width, device=self.device)]
        for some in in_batches(items, batch_size):
            batch = {name: tensor.to(self.device) for name, tensor in batch_of(some).items()}
            parts.append(self.encoder.features(batch).embedding.float())
        return torch.cat(parts)

    @torch.inference_mode()
    def _classified(self, embeddings: Tensor, top: int) -> list[list[PossibleClass]]:
        if self.question != "class":
            raise Mt2stError(f"{self._name} was trained to compare two items, not to name a class; use same")
        probabilities = self._head.head(embeddings).float().softmax(-1).cpu()
        best = probabilities.topk(min(max(top, 1), len(self.classes)))
        return [
            [PossibleClass(self.classes[place], value) for value, place in zip(values, places, strict=True)]
            for values, places in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def _compared(self, first: Tensor, second: Tensor) -> np.ndarray:
        """Probabilities [P] float32."""
        if self.question != "same_class":
            raise Mt2stError(f"{self._name} was trained to name the class of one item, not to compare; use classify")
        probabilities: np.ndarray = self._head.compare(first, second).float().sigmoid().cpu().numpy()
        return probabilities

    @property
    def _name(self) -> str:
        return str(self.about.get("run_id", "this model"))


def paired(first: Sequence[Any], second: Sequence[Any]) -> None:
    """Raise `Mt2stError` unless there is one of `second` for each of `first`."""
    if len(first) != len(second):
        raise Mt2stError(f"{len(first)} first and {len(second)} second items make no pairs; give as many of both")


def unit_rows(embeddings: Tensor) -> np.ndarray:
    """[N, D] float32, each row of length 1."""
    rows: np.ndarray = nn.functional.normalize(embeddings, dim=-1).cpu().numpy()
    return rows


def tuned(encoder: Any, build: Mapping[str, Any]) -> Any:
    """The encoder with LoRA's matrices, where it was trained with them ("lora_rank" and "freeze" of `build`)."""
    if build.get("lora_rank"):
        fine_tune(encoder.parts(), freeze=tuple(build["freeze"]), lora_rank=int(build["lora_rank"]))
    return encoder


def with_head(description: Description, build_encoder: Callable[[Mapping[str, Any]], Any]) -> tuple[Any, Any]:
    """Encoder and head with the run's weights; `build` holds "question", "classes" and "head" beside the encoder's.

    Raises:
        Mt2stError: no model that this version can build, or the weights are those of another one.
    """
    build = description.build
    try:
        question, classes = build["question"], build["classes"]
        if question not in QUESTIONS:
            raise unknown_name(f"question in {description.folder}", str(question), QUESTIONS)
        encoder = tuned(build_encoder(build), build)
        same = question == "same_class"
        head = SameClassObjective(encoder.width) if same else ClassificationObjective(encoder.width, len(classes))
    except (LookupError, TypeError, ValueError) as error:
        raise Mt2stError(f"{description.folder} describes no model that this version can build ({error!r})") from None
    load_parts(description, encoder, head)
    return encoder, head
