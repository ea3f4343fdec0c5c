"""Floors of "the same class?": simple models of scikit-learn, each with its settings chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_CLASSIFIED = 10_000  # training items, at most, from which the last floor learns the classes

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of logistic regressions


@dataclass(frozen=True)
class Asked:
    """A part's items and pairs.

    Attributes:
        vectors: [N, D] float32, what a simple model sees of each item.
        codes: [N] int64, class numbers.
        rows: [P, 2] int64, the pairs.
        same: [P] int64, 1 or 0.
    """

    vectors: np.ndarray
    codes: np.ndarray
    rows: np.ndarray
    same: np.ndarray

    def compared(self) -> np.ndarray:
        """(|u − v|, u ∘ v) of each pair, [P, 2·D]."""
        first, second = (self.vectors[side] for side in self.rows.T)
        return np.concatenate([np.abs(first - second), first * second], axis=1)

    def cosines(self) -> np.ndarray:
        """[P, 1]."""
        unit = self.vectors / np.maximum(np.linalg.norm(self.vectors, axis=1, keepdims=True), 1e-12)
        return np.asarray((unit[self.rows[:, 0]] * unit[self.rows[:, 1]]).sum(1, keepdims=True))


def pair_floors(train: Asked, validation: Asked, test: Asked, *, about: str) -> dict[str, float]:
    """Floor's name → accuracy on test.

    All but the last learn from the labelled pairs alone. The last one learns the items' classes from 10,000
    training items, as an auxiliary does, and compares its predictions.

    Args:
        about: what the vectors are, for the names, such as "pixels".
    """
    parts = (train, validation, test)
    answers = [part.same for part in parts]
    cosines, compared = [part.cosines() for part in parts], [part.compared() for part in parts]
    share = float(test.same.mean())
    return {
        "majority class": max(share, 1 - share),
        f"cosine of {about}": _best(_regression, (1.0,), cosines, answers),
        f"logistic regression on {about}": _best(_regression, _PENALTIES, compared, answers),
        f"SVM on {about}": _best(_machine, (0.3, 1.0, 3.0, 10.0, 30.0), compared, answers),
        f"k-NN on {about}": _best(
            _neighbours, [k for k in (1, 3, 10, 30, 100) if k <= len(train.rows)], compared, answers
        ),
        "classes by logistic regression, compared": _two_steps(train, test),
    }


def regression_floor(train: Asked, validation: Asked, test: Asked) -> float:
    """Accuracy on test of logistic regression on the compared vectors of pairs, its C chosen on validation."""
    parts = (train, validation, test)
    return _best(_regression, _PENALTIES, [part.compared() for part in parts], [part.same for part in parts])


def _best(
    make: Callable[[Any], Any], settings: Sequence[Any], seen: Sequence[np.ndarray], answers: Sequence[np.ndarray]
) -> float:
    """Accuracy on test of the setting that is best on validation, the first of equals."""
    models = [make(setting).fit(seen[0], answers[0]) for setting in settings]
    chosen = max(models, key=lambda model: model.score(seen[1], answers[1]))
    return float(chosen.score(seen[2], answers[2]))


def _standardised(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def _regression(c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return _standardised(LogisticRegression(C=c, max_iter=300))


def _machine(c: float) -> Any:
    from sklearn.svm import SVC

    return _standardised(SVC(C=c))


def _neighbours(count: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return _standardised(KNeighborsClassifier(count))


def _two_steps(train: Asked, test: Asked) -> float:
    from sklearn.linear_model import LogisticRegression

    rows = slice(_CLASSIFIED)
    model = _standardised(LogisticRegression(max_iter=100, tol=1e-2)).fit(train.vectors[rows], train.codes[rows])
    first, second = model.predict(test.vectors)[test.rows].T
    return float(((first == second) == test.same).mean())
