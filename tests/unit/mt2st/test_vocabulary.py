"""The answer vocabulary and its soft targets, against a loop, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.errors import Mt2stError


def test_the_most_frequent_answers_with_ties_in_alphabetical_order() -> None:
    vocabulary = AnswerVocabulary.build([("b", "a"), ("c", "a"), (), ("c", "b"), ("d",)], 3)
    assert vocabulary.answers == ("a", "b", "c")
    assert vocabulary.coverage == pytest.approx(6 / 7)
    assert (len(vocabulary), vocabulary.index("b"), vocabulary.index("d")) == (3, 1, None)


@given(answers=st.lists(st.lists(st.sampled_from("abcdef"), max_size=7), min_size=1, max_size=20), data=st.data())
@settings(max_examples=60, deadline=None)
def test_soft_targets_are_those_of_a_loop_to_the_bit(answers: list[list[str]], data: st.DataObject) -> None:
    targets = AnswerVocabulary(list("abcd")).targets(answers)
    rows = data.draw(st.lists(st.integers(0, len(answers) - 1), max_size=8))
    dense = targets.dense(np.array(rows, dtype=np.int64))
    assert dense.shape == (len(rows), 4)
    assert dense.dtype == torch.float32
    assert dense.is_contiguous()
    for row, found in zip(rows, dense.numpy(), strict=True):
        inside = [text for text in answers[row] if text in "abcd"]
        shares = [inside.count(letter) / max(1, len(inside)) for letter in "abcd"]
        assert found.tobytes() == np.array(shares, dtype=np.float32).tobytes()
        assert targets.answered[row] == bool(inside)


def test_questions_without_an_answer_inside() -> None:
    targets = AnswerVocabulary(["a"]).targets([(), ("b",)])
    assert targets.answered.tolist() == [False, False]
    assert targets.dense(np.array([1, 0, 1])).tolist() == [[0.0]] * 3


def test_no_answers_at_all() -> None:
    with pytest.raises(Mt2stError, match="the training split has no answers"):
        AnswerVocabulary.build([(), ()], 10)
