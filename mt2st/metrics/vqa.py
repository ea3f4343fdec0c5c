"""VQA accuracy under its three competing definitions. No torch.

All three average, over the annotators, min(1, matches among the *other* annotators / 3). They differ in what is
compared:

| protocol | prediction | annotators' answers |
|---|---|---|
| `official-2016` | always normalised | punctuation step only, and only when the annotators disagree |
| `official-2021` | normalised only when the annotators disagree | likewise |
| `always` | always normalised | always normalised |

So "Yes" against ten "yes" scores 1, 0 and 1. Papers before March 2021 report the first, newer ones the second,
lmms-eval the third; a number without its protocol cannot be compared.

The official definition was published with "VQA: Visual Question Answering" (Antol et al., 2015) and changed in its
repository on 2021-03-11 (GT-Vision-Lab/VQA, commit a013f00).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from mt2st.data.card import Answer
from mt2st.errors import Mt2stError, unknown_name

PROTOCOLS = ("official-2021", "official-2016", "always")
"""Names of the definitions; the first is the default."""

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_DIGITS = {"none": "0"} | {word: str(value) for value, word in enumerate(_NUMBER_WORDS.split())}
_COMMA_BETWEEN_DIGITS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32
_ENOUGH_MATCHES = 3

# The official table of contractions, as the suffixes it knows and the stems each of them is listed for. It has gaps
# ("shed" and "its" are left alone) and its capitalised keys ("Im", "Ive") can never match, since words are lower-cased
# before.
_STEMS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it someone something there they where who you",
    "'ll": "how it somebody someone something they what who why you",
    "'s": "he how somebody someone that there what when where who why",
    "'re": "there they what why you",
}
_DOUBLE_STEMS = {
    "n't've": "could had might should would",
    "'d've": "he it she somebody someone something there they we who you",
}
_IRREGULAR = {
    "maam": "ma'am",
    "oclock": "o'clock",
    "twas": "'twas",
    "yall": "y'all",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",  # listed the wrong way round in the official table, and scores depend on it
}


def _contractions() -> dict[str, str]:
    table = dict(_IRREGULAR)
    for suffix, stems in _STEMS.items():
        table |= {stem + suffix.replace("'", ""): stem + suffix for stem in stems.split()}
    for suffix, stems in _DOUBLE_STEMS.items():
        first, second = suffix[:-3], "'ve"  # either apostrophe may be the one that is missing
        for stem in stems.split():
            table[stem + first.replace("'", "") + second] = stem + suffix
            table[stem + first + second.replace("'", "")] = stem + suffix
    return table


_CONTRACTIONS = _contractions()


def _tidy(text: str) -> str:
    """Line feeds and tabs to spaces (carriage returns stay), outer white space off."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)
def strip_punctuation(text: str) -> str:
    """The official punctuation step.

    Whether a mark vanishes or leaves a space is decided on the whole string as it came in: it vanishes if the same mark
    touches a space anywhere, or if any two digits have a comma between them ("1,000"); so "a-b" gives "a b", but
    "a-b - c" gives "ab  c". Of the periods, the first 32 not followed by a digit go: the official look-behind is
    mistyped and matches always, so "5." becomes "5", and a regex flag is passed where the number of replacements
    belongs.
    """
    glued = _COMMA_BETWEEN_DIGITS.search(text) is not None
    result = text
    for mark in _MARKS:
        if mark in text:
            vanishes = glued or f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if vanishes else " ")
    return _PERIOD.sub("", result, count=_PERIODS_REMOVED)


@lru_cache(maxsize=1 << 16)
def normalise_answer(text: str) -> str:
    """The full official normalisation: punctuation, lower case, number words to digits, articles off, apostrophes back.

    >>> normalise_answer("The two dogs, dont!")
    "2 dogs don't"
    """
    words = (_DIGITS.get(word, word) for word in strip_punctuation(text).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str | Answer], protocol: str = "official-2021") -> float:
    """Accuracy of one predicted answer against the annotators' answers, in [0, 1].

    Annotators are told apart by their position, so equal strings are different annotators. A question with a *single*
    answer leaves nobody to compare with when its annotator is left out; there the score is plain agreement (1 or 0) of
    the texts that the protocol compares. With two or three answers the definition cannot exceed 1/3 or 2/3, and does
    not here.

    Args:
        prediction: the predicted answer, as the model gave it.
        answers: the annotators' answers, texts or `Answer` records; usually ten.
        protocol: one of `PROTOCOLS`.

    Raises:
        Mt2stError: unknown protocol; no answers (an unlabelled question has no accuracy); something that is not a text.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("VQA accuracy protocol", protocol, PROTOCOLS)
    predicted, given = _compared_texts(prediction, answers, protocol)
    if len(given) == 1:
        return float(given[0] == predicted)
    hits = sum(answer == predicted for answer in given)
    # Leaving out one annotator takes away one match if that annotator agreed with the prediction, none otherwise.
    scores = (min(1.0, (hits - (answer == predicted)) / _ENOUGH_MATCHES) for answer in given)
    return sum(scores) / len(given)


def _compared_texts(prediction: str, answers: Sequence[str | Answer], protocol: str) -> tuple[str, list[str]]:
    """The prediction and the answers as the protocol compares them."""
    if isinstance(answers, str):
        raise Mt2stError(f"vqa_accuracy: answers is one string, {answers!r}; give a sequence, such as [{answers!r}]")
    texts = [answer.text if isinstance(answer, Answer) else answer for answer in answers]
    if not texts:
        raise Mt2stError(
            "vqa_accuracy: a question without answers has no accuracy; leave unlabelled questions out and count them"
        )
    for text in (prediction, *texts):
        if not isinstance(text, str):
            raise Mt2stError(
                f"vqa_accuracy: {text!r} is a {type(text).__name__}, not a text; convert labels to answers first"
            )
    predicted = _tidy(prediction)
    if protocol == "always":
        return normalise_answer(predicted), [normalise_answer(_tidy(text)) for text in texts]
    if protocol == "official-2016":
        # The first version of the official code never strips the annotators' answers.
        return normalise_answer(predicted), [strip_punctuation(text) for text in texts] if len(
            set(texts)
        ) > 1 else texts
    texts = [_tidy(text) for text in texts]
    if len(set(texts)) > 1:
        return normalise_answer(predicted), [normalise_answer(text) for text in texts]
    return predicted, texts
