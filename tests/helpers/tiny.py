"""Small things that many tests need: a drawn split in memory, small towers, the default encoder with its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mt2st.data.streams import CaptionStream, QuestionStream
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.encoders.open_clip_towers import OpenClipTowers, SmallConfig, small_towers
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.objectives.masked_lm import MaskedLanguageObjective
from mt2st.objectives.matching import MatchingObjective
from mt2st.objectives.vqa import AnswerObjective
from mt2st.schedules import Constant, Schedule

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "grey": (128, 128, 128)}
SHAPES = ("square", "bar")


@dataclass
class DrawnSplit:
    """What streams and prediction use of a `PreparedSplit`, held in memory: squares and bars in four colours."""

    image_size: int = 16
    num_images: int = 24
    questions_per_image: int = 3
    name: str = "train"
    answers: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(7)
        names = list(COLOURS)
        self.colours = [names[at % 4] for at in range(self.num_images)]
        self.shapes = [SHAPES[at // 4 % 2] for at in range(self.num_images)]
        noise = random.integers(0, 20, (self.num_images, self.image_size, self.image_size, 3))
        self._pixels = noise.astype(np.uint8)
        for row, (colour, shape) in enumerate(zip(self.colours, self.shapes, strict=True)):
            height = self.image_size // 2 if shape == "square" else self.image_size // 4
            self._pixels[row, 2 : 2 + height, 2 : 2 + self.image_size // 2] = COLOURS[colour]
        if not self.answers:
            for colour, shape in zip(self.colours, self.shapes, strict=True):
                known = [(colour,), (shape,), ("yes" if colour == "red" else "no", "no")]
                self.answers += known[: self.questions_per_image]

    @property
    def num_captions(self) -> int:
        return self.num_images

    @property
    def num_questions(self) -> int:
        return len(self.answers)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        return self._pixels[rows]

    def has_pixels(self) -> np.ndarray:
        return np.ones(self.num_images, dtype=bool)

    def image_ids(self, rows: Any = None) -> list[str]:
        return [f"im{row}" for row in (range(self.num_images) if rows is None else rows)]

    def caption_texts(self) -> list[str]:
        return [f"a {colour} {shape}" for colour, shape in zip(self.colours, self.shapes, strict=True)]

    def caption_images(self) -> np.ndarray:
        return np.arange(self.num_images)

    def question_texts(self) -> list[str]:
        wordings = ("what colour is it?", "which shape is it?", "is it red?")[: self.questions_per_image]
        return [wordings[at % len(wordings)] for at in range(len(self.answers))]

    def question_images(self) -> np.ndarray:
        return np.arange(len(self.answers)) // self.questions_per_image

    def answer_texts(self) -> list[tuple[str, ...]]:
        return list(self.answers)


def tokenizer() -> TextTokenizer:
    split = DrawnSplit()
    return TextTokenizer.train(split.caption_texts() + split.question_texts(), 300)


def tiny_config(**changes: Any) -> SmallConfig:
    sizes = {
        "image_size": 16,
        "width": 16,
        "layers": 1,
        "heads": 2,
        "embedding_width": 8,
        "context_length": 12,
        "stem_width": 4,
    }
    return SmallConfig(**{**sizes, **changes})


def tiny_towers(*, sigmoid: bool = False, seed: int = 0) -> OpenClipTowers:
    torch.manual_seed(seed)
    return small_towers(tiny_config(), tokenizer(), sigmoid=sigmoid)


def tiny_encoder(towers: Any = None, *, seed: int = 0, fusion_layers: int = 1) -> VisionLanguageEncoder:
    towers = towers or tiny_towers(seed=seed)
    torch.manual_seed(seed + 1)
    return VisionLanguageEncoder(towers, fusion_width=16, fusion_layers=fusion_layers, fusion_heads=2)


def objective(name: str, encoder: VisionLanguageEncoder, answers: int = 9, seed: int = 5) -> Any:
    """An objective by its task name, with initial weights that depend on `seed` alone."""
    torch.manual_seed(seed)
    towers = encoder.towers
    if name == "vqa":
        return AnswerObjective(encoder.fusion.width, answers)
    if name == "masked_lm":
        return MaskedLanguageObjective(encoder.fusion.width, towers.vocabulary_size, towers.mask_id)
    if name == "matching":
        return MatchingObjective(encoder.fusion.width)
    return ContrastiveObjective({"contrastive": "softmax", "sigmoid": "sigmoid"}[name], name=name)  # type: ignore[arg-type]


def streams(encoder: VisionLanguageEncoder, *, images: int = 4, seed: int = 0) -> dict[str, Any]:
    """Streams "primary" (questions of a third of the images) and "captions" (of all) over a drawn split."""
    split = DrawnSplit()
    vocabulary = AnswerVocabulary.build(split.answer_texts(), 100)
    tokenize = encoder.towers.tokenize
    return {
        "primary": QuestionStream(DrawnSplit(num_images=8), tokenize, vocabulary, images_per_batch=images, seed=seed),
        "captions": CaptionStream(split, tokenize, images_per_batch=images, seed=seed),
    }


def mixture(encoder: VisionLanguageEncoder, **auxiliaries: Schedule) -> MT2ST:
    """VQA as the primary, and the named auxiliaries on the stream "captions"."""
    answers = len(AnswerVocabulary.build(DrawnSplit().answer_texts(), 100))
    tasks = [Task(objective(name, encoder), schedule, stream="captions") for name, schedule in auxiliaries.items()]
    return MT2ST(Task(objective("vqa", encoder, answers), Constant()), tasks)
