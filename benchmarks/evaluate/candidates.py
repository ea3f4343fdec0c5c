"""Questions answered by a model of two towers: it chooses, among candidate answers, the text that fits the picture."""

from __future__ import annotations

import numpy as np

from benchmarks.evaluate.answers import check_questions, graded
from benchmarks.evaluate.data import EvaluationData
from benchmarks.evaluate.embed import Embedder
from benchmarks.evaluate.measured import Measured
from benchmarks.evaluate.options import Options
from mt2st.data.vocabulary import AnswerVocabulary

_TEXTS_AT_ONCE = 1 << 16


def measure_candidates(embedder: Embedder, data: EvaluationData, options: Options) -> Measured:
    """VQA accuracy of the candidate whose text "question answer" is nearest to the picture.

    The candidates are the most frequent answers of the training split, so the model is told which answers there are. Of
    two candidates at the same distance the rarer one is taken. It costs one text a distinct question and candidate.

    Raises:
        Mt2stError: no questions, no answers, no training split.
    """
    check_questions(data)
    vocabulary = AnswerVocabulary.build(data.training.answer_texts(), options.candidates)
    candidates = vocabulary.answers[::-1]  # argmax takes the first of equals
    images = embedder.pictures(data.split)
    wordings, asked = np.unique(np.array(data.split.question_texts()), return_inverse=True)
    order = np.argsort(asked, kind="stable")
    picture, chosen = data.split.question_images(), np.zeros(len(asked), dtype=np.int64)
    step = max(1, _TEXTS_AT_ONCE // len(candidates))
    for start in range(0, len(wordings), step):
        some = [str(wording) for wording in wordings[start : start + step]]
        texts = embedder.texts([f"{wording} {answer}" for wording in some for answer in candidates])
        texts = texts.reshape(len(some), len(candidates), -1)
        first, last = np.searchsorted(asked[order], [start, start + len(some)])
        for row in order[first:last]:
            chosen[row] = (texts[asked[row] - start] @ images[picture[row]]).argmax()
    found = graded([candidates[choice] for choice in chosen], data)
    found.notes = {"candidates": list(vocabulary.answers), "coverage_of_training_answers": vocabulary.coverage}
    return found
