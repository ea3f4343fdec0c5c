"""The answer vocabulary, and the soft targets of questions over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from mt2st.errors import Mt2stError


class AnswerVocabulary:
    """The answers a model can give: the most frequent ones of the training split.

    Attributes:
        answers: the vocabulary, most frequent first, ties in alphabetical order.
        coverage: share of the training answers (annotator by annotator) that are in it.
    """

    def __init__(self, answers: Sequence[str], coverage: float = 1.0) -> None:
        self.answers = tuple(answers)
        self.coverage = coverage
        self._index = {answer: index for index, answer in enumerate(self.answers)}

    @classmethod
    def build(cls, answers: Sequence[Sequence[str]], size: int) -> AnswerVocabulary:
        """Count the annotators' answers of all questions and keep the `size` most frequent.

        Raises:
            Mt2stError: there is no answer at all.
        """
        counts = Counter(text for texts in answers for text in texts)
        if not counts:
            raise Mt2stError("the training split has no answers; VQA needs a labelled split")
        ordered = sorted(counts, key=lambda text: (-counts[text], text))[:size]
        return cls(ordered, sum(counts[text] for text in ordered) / counts.total())

    def __len__(self) -> int:
        return len(self.answers)

    def index(self, answer: str) -> int | None:
        """Position of `answer`, None if it is outside."""
        return self._index.get(answer)

    def targets(self, answers: Sequence[Sequence[str]]) -> SoftTargets:
        """Soft targets of N questions from their annotators' answers.

        An answer's target is the share of the question's annotators who gave it, among those whose answer is inside the
        vocabulary. Rows sum to 1, or are zero where no answer is inside.
        """
        starts, columns, shares = [0], list[int](), list[float]()
        for texts in answers:
            counts = Counter(self._index[text] for text in texts if text in self._index)
            columns += counts.keys()
            shares += [count / counts.total() for count in counts.values()]
            starts.append(len(columns))
        data = np.array(shares, dtype=np.float32)
        return SoftTargets(
            csr_array((data, np.array(columns, dtype=np.int64), starts), shape=(len(answers), len(self)))
        )


@dataclass(frozen=True)
class SoftTargets:
    """N rows of soft targets, held sparse.

    A dense matrix of VQA v2's 440,000 questions × 3,000 answers would take 5 GB.
    """

    matrix: csr_array  # [N, A] float32, without explicit zeros

    @property
    def answered(self) -> np.ndarray:
        """[N] bool: False for rows of zeros."""
        return np.diff(self.matrix.indptr) > 0

    def dense(self, rows: np.ndarray) -> Tensor:
        """The targets of `rows`, [n, A] float32."""
        starts = self.matrix.indptr[rows]
        counts = self.matrix.indptr[rows + 1] - starts
        # Where the rows' entries lie, one row after another. scipy's selection takes as long as the rest of a batch.
        places = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        dense = np.zeros((len(rows), self.matrix.shape[1]), dtype=np.float32)
        dense[np.repeat(np.arange(len(rows)), counts), self.matrix.indices[places]] = self.matrix.data[places]
        return torch.from_numpy(dense)
