"""A trained vision-language model: answers to questions about pictures, embeddings of pictures and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt2st.data.images import DEFAULT_MAX_PIXELS
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.encoders.architecture import architecture_halves
from mt2st.encoders.factory import make_towers, towers_of_halves
from mt2st.encoders.open_clip_towers import SmallConfig
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError
from mt2st.objectives.vqa import AnswerObjective
from mt2st.trained.asking import tuned
from mt2st.trained.description import Description, towers_folder
from mt2st.trained.pictures import in_batches, pixels_of
from mt2st.trained.weights import load_parts

TOKENIZER_FILE = "tokenizer.json"
ANSWERS_FILE = "answers.txt"


@dataclass(frozen=True)
class PossibleAnswer:
    """An answer and its probability ∈ [0, 1] among all answers that the model can give."""

    text: str
    probability: float


class VisionLanguageModel:
    """A trained encoder, and the head that answers where it has learned to.

    Attributes:
        encoder: the `VisionLanguageEncoder`, in evaluation mode.
        answers: the answers it can give; () for a retrieval model.
        image_size: side of the square that pictures are brought to, in pixels.
        about: run id, benchmark, strategy, seed.
        fingerprint: SHA-256 (hex) of all that decides its numbers: equal models, equal embeddings.
    """

    def __init__(
        self,
        encoder: VisionLanguageEncoder,
        head: AnswerObjective | None,
        answers: Sequence[str],
        *,
        image_size: int,
        fit: str,
        about: Mapping[str, Any],
        fingerprint: str = "",
    ) -> None:
        self.encoder = encoder.eval()
        self.answers = tuple(answers)
        self.image_size, self.about, self.fingerprint = image_size, dict(about), fingerprint
        self._head = head.eval() if head is not None else None
        self._fit = fit
        self._tokenize = trimming(encoder.towers.tokenize, encoder.towers.pad_id)

    def to(self, device: torch.device | str) -> VisionLanguageModel:
        """Move the model, in place; returns it."""
        self.encoder.to(device)
        if self._head is not None:
            self._head.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    @property
    def embedding_width(self) -> int:
        """D of the embeddings."""
        return self.encoder.towers.embedding_width

    def pixels(self, pictures: Sequence[Any], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
        """Pictures as this model sees them, uint8 [N, 3, image_size, image_size].

        Args:
            pictures: each a path, encoded bytes, a PIL image, or a uint8 array [H, W, 3] or [H, W].
            max_pixels: largest width × height that is decoded.

        Raises:
            Mt2stError: one cannot be read; it is named.
        """
        return pixels_of(pictures, self.image_size, self._fit, max_pixels=max_pixels)

    def answer(self, image: Any, question: str, *, top: int = 5) -> list[PossibleAnswer]:
        """The `top` most probable answers to a question about a picture, best first.

        Raises:
            Mt2stError: as `answer_all`.
        """
        return self.answer_all([image], [question], top=top)[0]

    def answer_all(
        self,
        images: Sequence[Any],
        questions: Sequence[str],
        *,
        question_image: Sequence[int] | None = None,
        top: int = 1,
        batch_size: int = 256,
    ) -> list[list[PossibleAnswer]]:
        """The `top` most probable answers to each of Q questions, best first.

        Args:
            images: the pictures.
            questions: Q questions.
            question_image: [Q], which picture each question is about; None = question i is about picture i. A picture
                is encoded once for all its questions.
            batch_size: pictures at a time.

        Raises:
            Mt2stError: the model does not answer questions, a picture cannot be read, or the numbers do not fit.
        """
        found: list[list[PossibleAnswer]] = [[] for _ in questions]
        for chosen, probabilities in self._answered(images, questions, question_image, batch_size):
            best = probabilities.topk(min(max(top, 1), len(self.answers)))
            for at, values, places in zip(chosen, best.values.tolist(), best.indices.tolist(), strict=True):
                pairs = zip(values, places, strict=True)
                found[at] = [PossibleAnswer(self.answers[place], value) for value, place in pairs]
        return found

    def answer_probabilities(
        self,
        images: Sequence[Any],
        questions: Sequence[str],
        *,
        question_image: Sequence[int] | None = None,
        batch_size: int = 256,
    ) -> np.ndarray:
        """Probabilities [Q, A] float32 of all A answers to each of Q questions; arguments as for `answer_all`."""
        found = np.zeros((len(questions), len(self.answers)), np.float32)
        for chosen, probabilities in self._answered(images, questions, question_image, batch_size):
            found[chosen] = probabilities.numpy()
        return found

    def embed_images(self, images: Iterable[Any], *, batch_size: int = 256) -> np.ndarray:
        """Unit embeddings [N, D] float32 of pictures (any kind that `pixels` takes), `batch_size` at a time."""
        return self._embedded({"pixels": self.pixels(batch)} for batch in in_batches(images, batch_size))

    def embed_texts(self, texts: Iterable[str], *, batch_size: int = 256) -> np.ndarray:
        """Unit embeddings [N, D] float32 of texts, `batch_size` at a time."""
        return self._embedded({"caption_tokens": self._tokenize(batch)} for batch in in_batches(texts, batch_size))

    @torch.inference_mode()
    def _embedded(self, batches: Iterable[dict[str, Tensor]]) -> np.ndarray:
        parts = [np.zeros((0, self.embedding_width), np.float32)]
        for batch in batches:
            features = self.encoder.features({name: tensor.to(self.device) for name, tensor in batch.items()})
            embedding = features.image_embedding if "pixels" in batch else features.caption_embedding
            parts.append(embedding.float().cpu().numpy())
        return np.concatenate(parts)

    def _answered(
        self, images: Sequence[Any], questions: Sequence[str], question_image: Sequence[int] | None, batch_size: int
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(positions in `questions`, their probabilities [n, A]), a batch of pictures at a time."""
        head = self._answering()
        about = np.arange(len(images)) if question_image is None else np.asarray(question_image, np.int64)
        if len(about) != len(questions) or (len(about) and not 0 <= about.min() <= about.max() < len(images)):
            raise Mt2stError(
                f"{len(questions)} questions and {len(images)} pictures do not fit together; give one question a "
                "picture, or question_image, the position of each question's picture"
            )
        order = np.argsort(about, kind="stable")
        sorted_about = about[order]
        for rows in in_batches(np.unique(about).tolist(), batch_size):
            low, high = np.searchsorted(sorted_about, [rows[0], rows[-1] + 1])
            chosen = order[low:high]
            pixels = self.pixels([images[row] for row in rows])
            asked = [questions[at] for at in chosen]
            yield chosen, self._probabilities(head, pixels, asked, np.searchsorted(rows, sorted_about[low:high]))

    @torch.inference_mode()
    def _probabilities(
        self, head: AnswerObjective, pixels: Tensor, questions: list[str], question_image: np.ndarray
    ) -> Tensor:
        """[Q, answers], on the CPU."""
        batch = {
            "pixels": pixels,
            "question_tokens": self._tokenize(questions),
            "question_image": torch.from_numpy(np.asarray(question_image, np.int64)),
        }
        features = self.encoder.features({name: tensor.to(self.device) for name, tensor in batch.items()})
        return head.logits(features).float().softmax(-1).cpu()

    def _answering(self) -> AnswerObjective:
        if self._head is None:
            raise Mt2stError(
                f"{self.about.get('run_id', 'this model')} does not answer questions: it was trained for "
                f"{self.about.get('benchmark', 'retrieval')}; load a run of vqa, or use embed_images and embed_texts"
            )
        return self._head


def trimming(tokenize: Callable[[list[str]], Tensor], pad_id: int) -> Callable[[list[str]], Tensor]:
    """`tokenize` without the columns in which every text is padding.

    Attention over padding costs FLOPs and tells nothing.
    """

    def trimmed(texts: list[str]) -> Tensor:
        tokens = tokenize(texts)
        used = (tokens != pad_id).any(0).nonzero()
        return tokens[:, : int(used.max()) + 1] if len(used) else tokens[:, :1]

    return trimmed


def build_encoder(
    build: Mapping[str, Any], tokenizer: TextTokenizer | None, architecture: Path | None = None
) -> VisionLanguageEncoder:
    """Towers and fusion with fresh weights, or the checkpoint's.

    Args:
        build: "towers" as for `make_towers`; "small", the fields of `SmallConfig`; "fusion_width", "fusion_layers" and
            "fusion_heads".
        architecture: folder that `write_architecture` wrote of the towers, which then get fresh weights.
    """
    small = SmallConfig(**build["small"])
    if architecture is None:
        towers = make_towers(build["towers"], small=small, tokenizer=tokenizer)
    else:
        found = architecture_halves(architecture)
        towers = towers_of_halves(*found, small=small, tokenizer=tokenizer, weights=False)
    return VisionLanguageEncoder(
        towers, **{name: build[name] for name in ("fusion_width", "fusion_layers", "fusion_heads")}
    )


def restored(description: Description) -> VisionLanguageModel:
    """The model of `model.json`: `build` holds what `build_encoder` takes, "image_size", "fit", and where LoRA was used
    "lora_rank" and "freeze".

    Raises:
        Mt2stError: the weights are those of another model.
    """
    build = description.build
    tokenizer = TextTokenizer.load(description.path(TOKENIZER_FILE)) if TOKENIZER_FILE in description.files else None
    try:
        encoder = tuned(build_encoder(build, tokenizer, towers_folder(description)), build)
        size, fit = int(build["image_size"]), str(build["fit"])
    except (LookupError, TypeError, ValueError) as error:
        raise Mt2stError(f"{description.folder} describes no model that this version can build ({error!r})") from None
    answers: tuple[str, ...] = ()
    head = None
    if ANSWERS_FILE in description.files:
        answers = AnswerVocabulary(description.path(ANSWERS_FILE).read_text(encoding="utf-8").splitlines()).answers
        head = AnswerObjective(encoder.fusion.width, len(answers))
    load_parts(description, encoder, head)
    return VisionLanguageModel(
        encoder, head, answers, image_size=size, fit=fit, about=description.about, fingerprint=description.fingerprint
    )
