"""Grading of answers to questions by every VQA protocol, whoever gave them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.cases.vqa.grading import language_prior
from benchmarks.evaluate.data import EvaluationData
from benchmarks.evaluate.measured import Measured
from mt2st.data.prepared import PreparedSplit
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.errors import Mt2stError
from mt2st.metrics import PROTOCOLS, vqa_accuracy


def check_questions(data: EvaluationData) -> None:
    """Raise `Mt2stError` unless the split has questions with answers."""
    name, split = data.dataset.card.name, data.split
    if not split.num_questions:
        raise Mt2stError(
            f"split {split.name!r} of {name!r} has no questions, which vqa needs; choose other --tasks, or map columns "
            "with --map question=COLUMN,answers=COLUMN"
        )
    if not any(split.answer_texts()):
        raise Mt2stError(f"no question of split {split.name!r} of {name!r} has an answer to grade by; name another one")


def graded(predictions: Sequence[str], data: EvaluationData) -> Measured:
    """VQA accuracy under every protocol, over the questions that have answers; predictions in the split's order.

    The floor is the most frequent training answer to each wording, where there is a training split.
    """
    split = data.split
    labelled = [row for row, given in enumerate(split.answer_texts()) if given]
    scores = protocol_scores(predictions, split, labelled)
    metrics = {f"vqa_accuracy/{protocol}": float(found.mean()) for protocol, found in scores.items()}
    metrics["unlabelled_questions"] = float(split.num_questions - len(labelled))
    floors = {}
    if data.train is not None and any(data.train.answer_texts()):
        known = AnswerVocabulary.build(data.train.answer_texts(), split.num_questions + 1000).answers
        wordings = split.question_texts()
        prior = language_prior(data.train.question_texts(), data.train.answer_texts(), wordings, known)
        found = protocol_scores([known[choice] for choice in prior], split, labelled)
        floors["language prior"] = {f"vqa_accuracy/{name}": float(one.mean()) for name, one in found.items()}
    ids = split.question_ids()
    return Measured(
        metrics,
        floors,
        {"question": np.array(labelled, dtype=np.int64), **{f"score/{name}": one for name, one in scores.items()}},
        answers=[{"question_id": ids[row], "answer": predictions[row]} for row in range(len(ids))],
    )


def protocol_scores(predictions: Sequence[str], split: PreparedSplit, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """Protocol → VQA accuracy [len(rows)] float32 of the questions `rows`."""
    answers = split.answer_texts()
    return {
        protocol: np.array([vqa_accuracy(predictions[row], answers[row], protocol) for row in rows], dtype=np.float32)
        for protocol in PROTOCOLS
    }
