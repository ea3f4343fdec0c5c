"""Questions answered by a generative model, in batches."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.evaluate.answers import check_questions, graded
from benchmarks.evaluate.data import EvaluationData
from benchmarks.evaluate.generative import GenerativeModel
from benchmarks.evaluate.measured import Cost, Measured
from benchmarks.evaluate.options import Options
from mt2st.flops import count_flops


class Answerer:
    """Asks one generative model.

    Attributes:
        model: the model.
        costs: "answers" → what answering took; FLOPs are those of the first batch, a question, times the questions.
    """

    def __init__(self, model: GenerativeModel) -> None:
        self.model = model
        self.costs: dict[str, Cost] = {}


def measure_answers(answerer: Answerer, data: EvaluationData, options: Options) -> Measured:
    """VQA accuracy of what the model generates.

    Raises:
        Mt2stError: no questions, no answers.
    """
    check_questions(data)
    model, split = answerer.model, data.split
    picture, questions = split.question_images(), split.question_texts()
    asked = [f"{question} {options.instruction}".strip() for question in questions]
    predictions: list[str] = []

    def batch(start: int) -> Any:
        rows = picture[start : start + options.batch_size]
        distinct, place = np.unique(rows, return_inverse=True)
        pictures = split.pictures(distinct)
        return model.inputs([pictures[at] for at in place], asked[start : start + options.batch_size])

    first = batch(0)
    flops = count_flops(lambda: model.generate(first, options.new_tokens))  # also warms up
    started = time.perf_counter()
    for start in range(0, len(asked), options.batch_size):
        predictions += model.generate(batch(start), options.new_tokens)
    seconds = time.perf_counter() - started
    each = flops / min(len(asked), options.batch_size)
    answerer.costs["answers"] = Cost(len(asked), seconds, round(each * len(asked)))
    found = graded(predictions, data)
    found.notes = {"prompt": model.prompt(asked[0]), "new_tokens": options.new_tokens}
    return found
