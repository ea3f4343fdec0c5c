"""A floor of VQA with a checkpoint: logistic regression on its frozen embeddings.

Shapes: Q questions, K and C components of texts and pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.cases.shared.frozen_features import FrozenFeatures
from benchmarks.cases.shared.ridge import in_parts
from benchmarks.cases.vqa.ridge_answers import mean_accuracy
from mt2st.data.prepared import PreparedSplit
from mt2st.data.vocabulary import AnswerVocabulary

COMPONENTS = (24, 60)  # of pictures and of texts: as many as the ridge has components and words
_PENALTIES = (0.001, 0.01, 0.1, 1.0)  # C
_QUESTIONS, _ANSWERS = 10_000, 100  # that it learns from and can give, at most


class FrozenAnswers:
    """Logistic regression on every product of a question's and its picture's components, to the answers.

    It learns from the labelled questions, each with its most frequent answer; C is chosen by accuracy on validation.
    """

    def __init__(
        self,
        features: FrozenFeatures,
        labelled: PreparedSplit,
        validation: PreparedSplit,
        vocabulary: AnswerVocabulary,
        protocol: str,
    ) -> None:
        from sklearn.linear_model import LogisticRegression

        self._features = features
        targets = vocabulary.targets(labelled.answer_texts())
        rows = np.flatnonzero(targets.answered)
        rows = rows[:: -(-len(rows) // _QUESTIONS)]
        classes = targets.dense(rows).numpy().argmax(1)
        common = np.argsort(-np.bincount(classes), kind="stable")[:_ANSWERS]
        taught = np.isin(classes, common)
        inputs, given = self._inputs(labelled, rows[taught]), validation.answer_texts()
        # Not standardised: that makes the smallest components as loud as the first, and costs five points.
        models: list[Any] = [
            LogisticRegression(C=penalty, max_iter=1000, tol=1e-3).fit(inputs, classes[taught])
            for penalty in _PENALTIES
        ]
        chosen = self._answers(validation, models)
        scores = [mean_accuracy(vocabulary, answers, given, protocol) for answers in chosen]
        self._model = models[int(np.argmax(scores))]

    def __call__(self, split: PreparedSplit) -> np.ndarray:
        """Answers to the questions of a split, as positions in the vocabulary, int64 [Q]."""
        found: np.ndarray = self._answers(split, [self._model])[0]
        return found

    def _answers(self, split: PreparedSplit, models: Sequence[Any]) -> np.ndarray:
        """What each model answers, int64 [M, Q]."""
        rows, parts = np.arange(split.num_questions), []
        for part in in_parts(len(rows)):
            inputs = self._inputs(split, rows[part])
            parts.append(np.stack([model.predict(inputs) for model in models]))
        return np.concatenate(parts, axis=1).astype(np.int64)

    def _inputs(self, split: PreparedSplit, rows: np.ndarray) -> np.ndarray:
        """[len(rows), (K + 1) · (C + 1) − 1] float32 for the questions `rows`."""
        wordings = split.question_texts()
        asked = self._features.texts([wordings[row] for row in rows.tolist()])
        shown, place = np.unique(split.question_images()[rows], return_inverse=True)
        seen = self._features.images(split.subset(shown))[place]
        one = np.ones((len(rows), 1), dtype=np.float32)
        products = np.hstack([asked, one])[:, :, None] * np.hstack([seen, one])[:, None, :]
        return products.reshape(len(rows), -1)[:, :-1]
