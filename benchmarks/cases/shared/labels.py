"""What the classification cases share: class numbers, stratified label fractions, probes and floors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mt2st.data.splits import PreparedSplit
from mt2st.errors import Mt2stError, check_range
from mt2st.metrics import expected_calibration_error
from mt2st.predict import Classes
from mt2st.randomness import generator


def class_names(split: PreparedSplit) -> list[str]:
    """Distinct labels of `split`, in alphabetical order.

    Raises:
        Mt2stError: an item has no label, or all have the same.
    """
    labels = split.labels()
    if None in labels:
        item = split.image_ids([labels.index(None)])[0]
        raise Mt2stError(
            f"split {split.name!r}: item {item!r} has no label; classification needs one each (map a column to label)"
        )
    names = sorted({str(label) for label in labels})
    if len(names) < 2:
        raise Mt2stError(
            f"split {split.name!r} has {len(names)} classes ({', '.join(names)}); classification needs at least two"
        )
    return names


def class_codes(split: PreparedSplit, names: Sequence[str]) -> np.ndarray:
    """Class numbers [N] int64 of `split`'s items.

    Raises:
        Mt2stError: a label is none of `names`, the classes of the training split.
    """
    index = {name: code for code, name in enumerate(names)}
    labels = split.labels()
    for row, label in enumerate(labels):
        if label not in index:
            item = split.image_ids([row])[0]
            raise Mt2stError(
                f"split {split.name!r}: item {item!r} has label {label!r}, outside the {len(names)} classes of the "
                f"training split ({', '.join(names[:5])}, …); mend the labels, or move an example of that class into "
                "the training split"
            )
    return np.array([index[str(label)] for label in labels], dtype=np.int64)


def stratified_rows(codes: np.ndarray, fraction: float, seed: int, names: Sequence[str]) -> np.ndarray:
    """Rows of a stratified choice, ascending: round(fraction · n) of each class's n, at least 1.

    A smaller fraction's rows are among a larger one's; 1 = all. Classes without an item are left alone.

    Raises:
        Mt2stError: a class has one item, which cannot be both chosen and left out.
    """
    check_range("label_fraction", fraction, 1e-9, 1.0, "it is a share of the training items, for example 0.1")
    if fraction == 1.0:
        return np.arange(len(codes))
    chosen = []
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        if len(rows) == 1:
            raise Mt2stError(
                f"class {names[int(code)]!r} has one training item, too few for a stratified label_fraction = "
                f"{fraction:g}; merge it with another class, leave it out, or use all labels with label_fraction = 1"
            )
        count = max(1, round(fraction * len(rows)))
        chosen.append(generator(seed, f"labels/{names[int(code)]}", 0).permutation(rows)[:count])
    return np.sort(np.concatenate(chosen))


def check_taught(taught: np.ndarray, asked: np.ndarray, names: Sequence[str], where: str) -> None:
    """Raise `Mt2stError` if a class that is asked for has no labelled training item."""
    missing = [names[int(code)] for code in np.setdiff1d(asked, taught)]
    if missing:
        raise Mt2stError(
            f"{len(missing)} classes of the {where} part have no labelled training item (first: {missing[0]!r}); "
            "raise label_fraction, lower validation_fraction, or leave these classes out"
        )


def macro_f1(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the classes that occur in `truth` or `prediction` of their F1 score (scikit-learn)."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, prediction, average="macro"))


def graded(found: Classes, truth: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Accuracy, macro-F1 and calibration of predicted classes; and the items behind them."""
    score = (found.prediction == truth).astype(np.float32)
    metrics = {
        "accuracy": float(score.mean()),
        "macro_f1": macro_f1(found.prediction, truth),
        "ece": expected_calibration_error(np.clip(found.confidence, 0, 1), score),
    }
    items = {
        "score": score,
        "prediction": found.prediction.astype(np.int64),
        "confidence": found.confidence,
        "label": truth,
    }
    return metrics, items


def majority(taught: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Floor: always the most frequent class of the labelled training items."""
    guess = np.full(len(truth), np.bincount(taught).argmax())
    return {"accuracy": float((guess == truth).mean()), "macro_f1": macro_f1(guess, truth)}


def linear_probe(vectors: np.ndarray, taught: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Classes [n] of `asked` [n, D] by logistic regression (scikit-learn, C = 1) on standardised vectors [N, D]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return np.asarray(model.fit(vectors, taught).predict(asked), dtype=np.int64)


def nearest_neighbours(
    vectors: np.ndarray, taught: np.ndarray, asked: np.ndarray, *, neighbours: int = 5
) -> np.ndarray:
    """Classes [n] of `asked` [n, D] by k nearest neighbours (scikit-learn; Euclidean, weights 1 / distance)."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(neighbours, len(vectors)), weights="distance")
    return np.asarray(model.fit(vectors, taught).predict(asked), dtype=np.int64)
