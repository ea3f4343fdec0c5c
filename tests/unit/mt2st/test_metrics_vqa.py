"""VQA accuracy: the definition by a slow twin, the quirks one by one, bad input."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt2st.errors import Mt2stError
from mt2st.metrics import PROTOCOLS, normalise_answer, vqa_accuracy
from mt2st.metrics.vqa import strip_punctuation


def slow_accuracy(prediction: str, answers: list[str]) -> float:
    """The definition word for word: leave each annotator out, count the matches among the rest."""
    scores = []
    for left_out in range(len(answers)):
        rest = [answer for place, answer in enumerate(answers) if place != left_out]
        scores.append(min(1.0, sum(answer == prediction for answer in rest) / 3))
    return sum(scores) / len(scores)


@given(st.sampled_from("xyz"), st.lists(st.sampled_from("xyz"), min_size=2, max_size=12), st.sampled_from(PROTOCOLS))
def test_equals_the_leave_one_out_twin(prediction: str, answers: list[str], protocol: str) -> None:
    assert vqa_accuracy(prediction, answers, protocol) == pytest.approx(slow_accuracy(prediction, answers))


@given(st.text(max_size=30), st.lists(st.text(max_size=12), min_size=1, max_size=10), st.sampled_from(PROTOCOLS))
def test_any_text_scores_between_zero_and_one(prediction: str, answers: list[str], protocol: str) -> None:
    assert 0.0 <= vqa_accuracy(prediction, answers, protocol) <= 1.0


def test_capital_letter_against_unanimous_annotators() -> None:
    scores = {protocol: vqa_accuracy("Yes", ["yes"] * 10, protocol) for protocol in PROTOCOLS}
    assert scores == {"official-2021": 0.0, "official-2016": 1.0, "always": 1.0}


@pytest.mark.parametrize(("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_number_of_matches(matches: int, expected: float) -> None:
    assert vqa_accuracy("cat", ["cat"] * matches + ["dog"] * (10 - matches)) == pytest.approx(expected)


def test_a_single_answer_is_plain_agreement() -> None:
    assert vqa_accuracy("circle", ["circle"]) == 1.0
    assert vqa_accuracy("square", ["circle"]) == 0.0
    assert vqa_accuracy("Circle", ["circle"], "official-2021") == 0.0
    assert vqa_accuracy("Circle", ["circle"], "always") == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.", "5"),  # the look-behind is inert: a period after a digit goes, too
        ("3.5", "3.5"),
        ("a-b", "a b"),
        ("a-b - c", "ab  c"),  # one dash touches a space, so all dashes vanish
        ("1,000 a/b", "1000 ab"),  # digit-comma-digit glues every mark
        (". " * 40, " " * 32 + ". " * 8),  # only 32 periods are removed
        ("it's: #1", "it's: #1"),  # apostrophe, colon and hash are no punctuation
    ],
)
def test_punctuation_step(text: str, expected: str) -> None:
    assert strip_punctuation(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Two dogs", "2 dogs"),
        ("none", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("Im", "im"),  # the official key is capitalised and never matches
        ("shouldntve", "shouldntve"),
        ("shouldn'tve", "shouldn't've"),
        ("hed've", "he'd've"),
        ("somebody'd", "somebodyd"),  # the official table has it the wrong way round
        ("its", "its"),
        ("a an the", ""),
    ],
)
def test_normalisation(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("yes", ["yes"], "offical-2021"), "official-2021"),
        (("yes", []), "unlabelled"),
        (("yes", "yes"), "one string"),
        ((3, ["yes"]), "not a text"),
        (("yes", ["yes", None]), "not a text"),
    ],
)
def test_bad_input(arguments: tuple, words: str) -> None:
    with pytest.raises(Mt2stError, match=words):
        vqa_accuracy(*arguments)


def test_metrics_need_no_torch() -> None:
    code = "import sys, mt2st.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
