"""Floors of the retrieval case: a random order; a tuned ridge from pixels to words; with a checkpoint, a regression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.cases.retrieval.captions import Captions
from benchmarks.cases.shared.frozen_features import FrozenFeatures
from benchmarks.cases.shared.ridge import PixelComponents, TextComponents, in_parts, ridges
from mt2st.data.prepared import PreparedSplit
from mt2st.evaluate import evaluate_retrieval

COMPONENTS = 128  # of pictures and of texts, at most
_PENALTIES = (1e-2, 1e-1, 1.0, 10.0)  # λ of the logistic regression
_QUERIES = 2000  # that it learns from, at most


class RidgeFloor:
    """Ridge from principal components of the pixels to singular vectors of the texts (TF-IDF of words and word pairs).

    Its strength, and whether it learns from the labelled queries alone or from all captions that the auxiliaries see,
    are chosen by the mean reciprocal rank on validation. Both are found when it is made, once for a case.

    Args:
        train: the training images; queries: those of the labelled ones; further: rows of `train`'s captions that the
            auxiliaries see.
    """

    def __init__(self, train: PreparedSplit, queries: Captions, further: np.ndarray, validation: Captions) -> None:
        texts = train.caption_texts(further)
        self._words = TextComponents(texts, COMPONENTS, longest=2)
        self._pixels = PixelComponents(train, COMPONENTS)
        everything = (self._pixels.of(train)[train.caption_images()[further]], self._texts(texts))
        labelled = (self._pixels.of(queries.split)[queries.images], self._texts(queries.texts))
        images, asked = self._pixels.of(validation.split), self._texts(validation.texts)
        best = -1.0
        for inputs, outputs in (labelled, everything):
            for weights in ridges((inputs[part], outputs[part]) for part in in_parts(len(inputs))):
                score = _scores(images @ weights, asked, validation)["text_to_image/mrr"]
                if score > best:
                    best, self._weights = score, weights

    def __call__(self, captions: Captions) -> Mapping[str, float]:
        """The retrieval metrics on a test split."""
        return _scores(self._pixels.of(captions.split) @ self._weights, self._texts(captions.texts), captions)

    def _texts(self, texts: list[str]) -> np.ndarray:
        """Unit vectors [len(texts), K], float32."""
        return _unit(self._words.of(texts))


class FrozenFloor:
    """Logistic regression on frozen embeddings: p(text j | picture i) = softmaxⱼ(xᵢᵀ W tⱼ), and the same over pictures.

    x and t are components of the embeddings, x with a constant beside them. W minimises the mean cross-entropy of both
    ways over the labelled queries plus λ‖W‖² / 2, by L-BFGS; λ is chosen by the mean reciprocal rank on validation.
    """

    def __init__(self, features: FrozenFeatures, queries: Captions, validation: Captions) -> None:
        from scipy.optimize import minimize

        self._features = features
        rows = np.arange(len(queries.images))[:: -(-len(queries.images) // _QUERIES)]
        places = queries.images[rows]
        images, texts = self._images(queries)[places], features.texts([queries.texts[row] for row in rows.tolist()])
        same = (places[:, None] == places).astype(np.float32)
        truth = same / same.sum(1, keepdims=True)
        shown, asked = self._images(validation), features.texts(validation.texts)
        best, shape = -1.0, (images.shape[1], texts.shape[1])
        for penalty in _PENALTIES:

            def loss(flat: np.ndarray, penalty: float = penalty) -> tuple[float, np.ndarray]:
                weights = flat.reshape(shape).astype(np.float32)
                value, slope = _cross_entropy(images @ weights @ texts.T, truth)
                value += penalty / 2 * float((weights**2).sum())
                return value, (images.T @ slope @ texts + penalty * weights).astype(np.float64).ravel()

            found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 40})
            weights = found.x.reshape(shape).astype(np.float32)
            score = _scores_of_products(shown @ weights, asked, validation)["text_to_image/mrr"]
            if score > best:
                best, self._weights = score, weights

    def __call__(self, captions: Captions) -> Mapping[str, float]:
        """The retrieval metrics on a test split."""
        return _scores_of_products(
            self._images(captions) @ self._weights, self._features.texts(captions.texts), captions
        )

    def _images(self, captions: Captions) -> np.ndarray:
        found = self._features.images(captions.split)
        return np.hstack([found, np.ones((len(found), 1), dtype=np.float32)])


def _scores_of_products(images: np.ndarray, texts: np.ndarray, captions: Captions) -> dict[str, float]:
    """The metrics where the order is that of the products of `images` and `texts`.

    Vectors are ranked by cosine. A dimension that the other side has not makes all of a side equally long.
    """
    nothing = np.zeros((len(images), 1), dtype=np.float32), np.zeros((len(texts), 1), dtype=np.float32)
    images = np.hstack([images, _missing_length(images), nothing[0]])
    return _scores(images, _unit(np.hstack([texts, nothing[1], _missing_length(texts)])), captions)


def _missing_length(vectors: np.ndarray) -> np.ndarray:
    """[N, 1]: with it beside them, all `vectors` [N, D] are as long as the longest, or of length 1 if all are 0."""
    squares = (vectors**2).sum(1, keepdims=True)
    found: np.ndarray = np.sqrt((squares.max() or 1.0) - squares)
    return found


def _cross_entropy(logits: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of rows and of columns of `logits` [N, N], and its slope [N, N].

    Args:
        truth: [N, N], symmetric; each row sums to 1.
    """
    value, slope = 0.0, np.zeros_like(logits)
    for axis in (0, 1):
        shifted = logits - logits.max(axis, keepdims=True)
        log_share = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
        value -= float((truth * log_share).sum()) / (2 * len(logits))
        slope += (np.exp(log_share) - truth) / (2 * len(logits))
    return value, slope


def _scores(images: np.ndarray, texts: np.ndarray, captions: Captions) -> dict[str, float]:
    return evaluate_retrieval(_unit(images), texts, captions.images, ks=(1, 5, 10))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """`vectors` at length 1; one without a direction, such as a text of unknown words, gets the diagonal's."""
    empty = np.linalg.norm(vectors, axis=1, keepdims=True) < 1e-12
    vectors = np.where(empty, np.ones_like(vectors), vectors)
    found: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def chance(captions: Captions) -> dict[str, float]:
    """Expected values for a random order of the gallery.

    A text has one relevant image; an image's own captions are relevant to it.
    """
    of_image = np.bincount(captions.images, minlength=captions.split.num_images)
    values: dict[str, float] = {}
    for direction, items, relevant in (
        ("text_to_image", captions.split.num_images, np.ones(1, np.int64)),
        ("image_to_text", len(captions.images), of_image),
    ):
        share = first_rank_by_chance(items, relevant)
        ranks, reached = np.arange(1, items + 1), np.cumsum(share)
        values |= {f"{direction}/hit_rate@{k}": float(reached[min(k, items) - 1]) for k in (1, 5, 10)}
        middle = [int(np.flatnonzero(reached >= half)[0]) + 1 for half in (0.5 - 1e-9, 0.5 + 1e-9)]
        values[f"{direction}/median_rank"] = sum(middle) / 2
        values[f"{direction}/mean_rank"] = float((share * ranks).sum())
        values[f"{direction}/mrr"] = float((share / ranks).sum())
    return values


def first_rank_by_chance(items: int, relevant: np.ndarray) -> np.ndarray:
    """Probability [items] that the first relevant item of a randomly ordered gallery has rank 1 … items.

    It is the mean over the queries. With R relevant among T, all of the first r are irrelevant with probability
    ∏_{i<r} (T − R − i) / (T − i).

    Args:
        items: T.
        relevant: R of each query, int64 [Q], each ≥ 1.
    """
    total = np.zeros(items)
    counts, queries = np.unique(relevant, return_counts=True)
    for count, weight in zip(counts, queries, strict=True):
        place = np.arange(items)
        missed = np.cumprod(np.maximum(items - count - place, 0) / (items - place))
        total += weight / queries.sum() * -np.diff(missed, prepend=1.0)
    return total
