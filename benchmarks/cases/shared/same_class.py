"""The question "are these two of one class?": pairs made from class numbers, asked of a model and graded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.cases import TestResult
from benchmarks.cases.shared.examples import sample_rows, thumbnails
from benchmarks.cases.shared.pair_floors import Asked, pair_floors, regression_floor
from benchmarks.records.examples import Example, Examples
from mt2st.data.splits import PreparedSplit
from mt2st.data.streams import ItemStream, PairStream
from mt2st.errors import Mt2stError
from mt2st.metrics import expected_calibration_error
from mt2st.predict import predict_pairs
from mt2st.randomness import generator

ANSWERS = ["different", "same"]  # names of the codes 0 and 1
_ROUNDS = 100  # of drawing partners of another class; what has none then is left out


Vectors = Callable[[], Sequence[np.ndarray]]  # of the items of training, validation and test, each [N, D]


@dataclass(frozen=True)
class SameClassPairs:
    """Pairs of a split's items, as many of one class as of two.

    Four items a, a' of one class and b, b' of another make a block: a–a' and b–b' are the same, a'–b and b'–a are
    different. An item is in one block at most, so in one pair of either kind, and alone it tells nothing of the answer.

    Attributes:
        rows: [P, 2] int64, rows of the items.
        same: [P] int64, 1 or 0.
        cluster: [P] int32, the number of the block. Pairs of different blocks share no item.
    """

    rows: np.ndarray
    same: np.ndarray
    cluster: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def draw_pairs(codes: np.ndarray, count: int, seed: int, name: str) -> SameClassPairs:
    """At most `count` pairs of items with class numbers `codes` [N]; fewer where the items do not suffice.

    A smaller choice is part of a larger one.

    Raises:
        Mt2stError: the items do not suffice for one block.
    """
    random = generator(seed, f"pairs/{name}", 0)
    order = random.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    twins = np.concatenate([_halves(order[codes[order] == code]) for code in np.unique(codes)])
    blocks: list[np.ndarray] = []
    for _ in range(_ROUNDS):
        twins = random.permutation(twins)
        quads = twins[: len(twins) // 2 * 2].reshape(-1, 4)
        fit = codes[quads[:, 0]] != codes[quads[:, 2]]
        blocks.append(quads[fit])
        twins = np.concatenate([quads[~fit].reshape(-1, 2), twins[len(quads) * 2 :]])
    quads = np.concatenate(blocks)[: max(1, count // 4)]
    if not len(quads):
        raise Mt2stError(
            f"the {name} part has too few items for a pair: two items each of two classes are needed; give more items, "
            "or merge classes"
        )
    ring = np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1)  # a–a', a'–b, b–b', b'–a: [blocks, 4, 2]
    same = np.tile(np.array([1, 0, 1, 0], dtype=np.int64), len(quads))
    return SameClassPairs(ring.reshape(-1, 2), same, np.repeat(np.arange(len(quads), dtype=np.int32), 4))


def _halves(rows: np.ndarray) -> np.ndarray:
    """Neighbours as pairs [n // 2, 2]; an odd one is left out."""
    return rows[: len(rows) // 2 * 2].reshape(-1, 2)


class SameClassQuestion:
    """Few labelled pairs of the training items; pairs of validation and of test items.

    Args:
        codes: class numbers of the items of training, validation and test, each [N].
        labelled: pairs whose answer may be used in training; with `validation` and `test`, how many at most.
        draw: seed that chooses the labelled pairs. Those of validation and test are the same for every draw's items.
        vectors: what the floors see of the items; asked for at the first test, not before.
        about: what the vectors are, for the floors' names, such as "pixels".
        texts: of the test items, for the examples; empty = they have none.
        pictures: the test items, for the examples; None = they have none.
    """

    def __init__(
        self,
        codes: Sequence[np.ndarray],
        *,
        labelled: int,
        validation: int,
        test: int,
        draw: int,
        vectors: Vectors,
        about: str,
        texts: Sequence[str] = (),
        pictures: PreparedSplit | None = None,
    ) -> None:
        self.codes, self.about, self._vectors = tuple(codes), about, vectors
        self._texts, self._pictures = texts, pictures
        self.train = draw_pairs(codes[0], labelled, draw, "training")
        self.validation = draw_pairs(codes[1], validation, 0, "validation")
        self.test = draw_pairs(codes[2], test, 0, "test")
        self.data = {
            "labelled_pairs": len(self.train),
            "validation_pairs": len(self.validation),
            "test_pairs": len(self.test),
        }

    def stream(self, items: ItemStream, pairs_per_batch: int, seed: int) -> PairStream:
        """The labelled pairs of the training `items`."""
        pairs = self.train
        return PairStream(items, pairs.rows, pairs.same, pairs_per_batch=pairs_per_batch, seed=seed)

    def validation_stream(self, items: ItemStream, pairs_per_batch: int, seed: int) -> PairStream:
        """The pairs of the validation `items`."""
        pairs = self.validation
        return PairStream(items, pairs.rows, pairs.same, pairs_per_batch=pairs_per_batch, seed=seed)

    def validator(self, encoder: Any, objective: Any, items: ItemStream) -> Callable[[], dict[str, float]]:
        """Accuracy on the pairs of the validation `items`."""

        def validate() -> dict[str, float]:
            probability = asked(encoder, objective, items, self.validation)
            return {"accuracy": float(((probability > 0.5) == self.validation.same).mean())}

        return validate

    def grade(self, encoder: Any, objective: Any, items: ItemStream) -> TestResult:
        """Accuracy and calibration on the pairs of the test `items`."""
        pairs = self.test
        probability = asked(encoder, objective, items, pairs)
        prediction = (probability > 0.5).astype(np.int64)
        score = (prediction == pairs.same).astype(np.float32)
        confidence = np.maximum(probability, 1 - probability)
        return TestResult(
            {"accuracy": float(score.mean()), "ece": expected_calibration_error(confidence, score)},
            {
                "score": score,
                "prediction": prediction,
                "confidence": confidence,
                "answer": pairs.same,
                "cluster": pairs.cluster,
            },
            {"answer": ANSWERS},
            self.floors,
            self._examples(probability),
        )

    def _examples(self, probability: np.ndarray) -> Examples | None:
        """A few test pairs with the model's answers; None where there is nothing to show of an item.

        Args:
            probability: [P] float32, that both are of one class.
        """
        if not len(self._texts) and self._pictures is None:
            return None
        pairs, chosen = self.test, sample_rows(len(self.test))
        items = []
        for place in chosen.tolist():
            answer, right = int(probability[place] > 0.5), int(pairs.same[place])
            left, other = pairs.rows[place].tolist()
            items.append(
                Example(
                    item=place,
                    question=f"{self._texts[left]} | {self._texts[other]}" if len(self._texts) else "Of one class?",
                    right=(ANSWERS[right],),
                    given=ANSWERS[answer],
                    score=float(answer == right),
                    confidence=round(float(max(probability[place], 1 - probability[place])), 4),
                    kind=ANSWERS[right],
                    pictures=() if self._pictures is None else (str(left), str(other)),
                )
            )
        found = {} if self._pictures is None else thumbnails(self._pictures, pairs.rows[chosen].ravel().tolist())
        return Examples(tuple(items), found, kinds="Of one class")

    @property
    def asked_rows(self) -> list[np.ndarray]:
        """Rows of the items that are in pairs, of training, validation and test."""
        return [np.unique(pairs.rows) for pairs in (self.train, self.validation, self.test)]

    def regression(self, vectors: Sequence[np.ndarray]) -> float:
        """Accuracy on test of logistic regression on `vectors` of the items `asked_rows`; its C by validation."""
        parts = [
            Asked(found, codes[rows], np.searchsorted(rows, pairs.rows), pairs.same)
            for found, codes, rows, pairs in zip(
                vectors, self.codes, self.asked_rows, (self.train, self.validation, self.test), strict=True
            )
        ]
        return regression_floor(*parts)

    @cached_property
    def floors(self) -> dict[str, dict[str, float]]:
        """What simple models reach with the same labelled pairs, or with all classes."""
        parts = [
            Asked(vectors, codes, pairs.rows, pairs.same)
            for vectors, codes, pairs in zip(
                self._vectors(), self.codes, (self.train, self.validation, self.test), strict=True
            )
        ]
        return {name: {"accuracy": value} for name, value in pair_floors(*parts, about=self.about).items()}


def asked(encoder: Any, objective: Any, items: ItemStream, pairs: SameClassPairs) -> np.ndarray:
    """Probability [P] that both items of a pair are of one class; each item of a pair is encoded once."""
    used, places = np.unique(pairs.rows, return_inverse=True)
    batches = (items.rows(part) for part in np.array_split(used, -(-len(used) // 512)))
    return predict_pairs(encoder, objective, batches, places.reshape(-1, 2))
