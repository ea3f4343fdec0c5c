"""A tuned floor of VQA: ridge from words × pixels to answers.

Shapes: Q questions, W words, C principal components, A answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.cases.shared.ridge import PixelComponents, in_parts, ridges
from mt2st.data.prepared import PreparedSplit
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.metrics import vqa_accuracy

_WORDS = 60  # the most frequent ones of the labelled questions
_COMPONENTS = 24


def mean_accuracy(
    vocabulary: AnswerVocabulary, chosen: np.ndarray, answers: Sequence[tuple[str, ...]], protocol: str
) -> float:
    """VQA accuracy of the answers at `chosen` [Q] of the vocabulary, over the questions that have answers."""
    scores = [
        vqa_accuracy(vocabulary.answers[at], given, protocol)
        for at, given in zip(chosen, answers, strict=True)
        if given
    ]
    return float(np.mean(scores))


class RidgeAnswers:
    """Ridge on every product of a question's words and its picture's principal components, to the answer targets.

    It sees what the primary task sees. Its strength is chosen by accuracy on validation.
    """

    def __init__(
        self, labelled: PreparedSplit, validation: PreparedSplit, vocabulary: AnswerVocabulary, protocol: str
    ) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        words = CountVectorizer(max_features=_WORDS, binary=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
        self._words: Any = words.fit(labelled.question_texts())
        self._pixels = PixelComponents(labelled, _COMPONENTS)
        targets = vocabulary.targets(labelled.answer_texts())
        answered = np.flatnonzero(targets.answered)
        rows = [answered[part] for part in in_parts(len(answered))]
        given = validation.answer_texts()
        best = -1.0
        parts = list(self._inputs(labelled, rows))
        for weights in ridges((inputs, targets.dense(own).numpy()) for inputs, own in zip(parts, rows, strict=True)):
            score = mean_accuracy(vocabulary, self._answers(validation, weights), given, protocol)
            if score > best:
                best, self._weights = score, weights

    def __call__(self, split: PreparedSplit) -> np.ndarray:
        """Answers to the questions of a split, as positions in the vocabulary, int64 [Q]."""
        return self._answers(split, self._weights)

    def _answers(self, split: PreparedSplit, weights: np.ndarray) -> np.ndarray:
        rows = [np.arange(split.num_questions)[part] for part in in_parts(split.num_questions)]
        return np.concatenate([(inputs @ weights).argmax(1) for inputs in self._inputs(split, rows)])

    def _inputs(self, split: PreparedSplit, rows: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Parts [len(own), (W + 1) · (C + 1)] float32 for the questions `own` of `rows`."""
        words = self._words.transform(split.question_texts()).tocsr()
        pixels, images = self._pixels.of(split), split.question_images()
        for own in rows:
            one = np.ones((len(own), 1), dtype=np.float32)
            asked = np.hstack([words[own].toarray(), one])
            seen = np.hstack([pixels[images[own]], one])
            yield (asked[:, :, None] * seen[:, None, :]).reshape(len(own), -1)
