"""Texts that were split once: the same ids and counts as from the texts themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mt2st.encoders.split_texts import SplitTexts
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.words import WordVocabulary, words_of

TEXTS = [
    "a small grey animal",
    "",
    "the animal's grey, grey stone; it isn't small!",
    "  two  blanks, a tab\tand a\nnew line ",
    "[MASK] spelled out [END] twice [PAD]",
    "ﬁne ﬂour, naïve café, ½ of １２ and …",
    "emoji 🙂🙂 and 日本語 and Straße",
    "an extraordinarily long gloss with many more words than any length that is asked for in these tests here",
    "1,234.5 percent of it's they'll we've",
]
ROWS = np.array([7, 0, 2, 1, 1, 8, 4, 3, 5, 6])


@pytest.mark.parametrize("length", [2, 3, 12, 80])
def test_a_tokenizer_encodes_them_as_the_texts(length: int) -> None:
    tokenizer = TextTokenizer.train(TEXTS[:4], 290)
    found = tokenizer.encode_rows(SplitTexts(TEXTS, TextTokenizer.split), ROWS, length)
    assert torch.equal(found, tokenizer.encode([TEXTS[row] for row in ROWS], length))


@pytest.mark.parametrize("length", [1, 3, 40])
def test_a_vocabulary_counts_and_encodes_them_as_the_texts(length: int) -> None:
    split = SplitTexts(TEXTS, words_of)
    some = np.array([0, 2, 3, 7])
    wanted = WordVocabulary.build([TEXTS[row] for row in some], 9, at_least=1)
    vocabulary = WordVocabulary.most_frequent(split.counts(some), 9, at_least=1)
    assert vocabulary.words == wanted.words
    assert torch.equal(vocabulary.counts, wanted.counts)
    found = vocabulary.encode_rows(split, ROWS, length)
    assert torch.equal(found, wanted.encode([TEXTS[row] for row in ROWS], length))


def test_no_texts_and_no_rows() -> None:
    assert len(SplitTexts([], words_of)) == 0
    split = SplitTexts(TEXTS, words_of)
    none = np.zeros(0, dtype=np.int64)
    assert split.counts(none) == {}
    assert WordVocabulary.build(TEXTS, 9).encode_rows(split, none, 4).shape == (0, 4)
