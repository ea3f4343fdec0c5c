"""Texts that were split once: the same ids and counts as from the texts themselves."""

from __future__ import annotations

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
GIVEN = [TEXTS[row] for row in (7, 0, 2, 1, 1, 8, 4, 3, 5, 6)]


@pytest.mark.parametrize("length", [2, 3, 12, 80])
def test_a_tokenizer_encodes_them_as_the_texts(length: int) -> None:
    split = SplitTexts(TextTokenizer.split)
    for tokenizer in (TextTokenizer.train(TEXTS[:4], 290), TextTokenizer.train(TEXTS[3:], 330)):
        wordwise = tokenizer.wordwise(split)
        for texts in (TEXTS[:2], GIVEN, ["never seen before, unlike the others"]):
            assert torch.equal(wordwise(texts, length), tokenizer.encode(texts, length))


@pytest.mark.parametrize("length", [1, 3, 40])
def test_a_vocabulary_counts_and_encodes_them_as_the_texts(length: int) -> None:
    split = SplitTexts(words_of)
    for some in (TEXTS[2:8], TEXTS[:4]):
        wanted = WordVocabulary.build(some, 9, at_least=1)
        vocabulary = WordVocabulary.most_frequent(split.counts(some), 9, at_least=1)
        assert vocabulary.words == wanted.words
        assert torch.equal(vocabulary.counts, wanted.counts)
        assert torch.equal(vocabulary.wordwise(split)(GIVEN, length), wanted.encode(GIVEN, length))


def test_a_text_is_split_once() -> None:
    seen: list[str] = []

    def split(text: str) -> list[str]:
        seen.append(text)
        return words_of(text)

    texts = SplitTexts(split)
    texts.counts(GIVEN)
    texts.counts(TEXTS)
    assert sorted(seen) == sorted(TEXTS)


def test_no_texts() -> None:
    split = SplitTexts(words_of)
    assert split.counts([]) == {}
    assert WordVocabulary.build(TEXTS, 9).wordwise(split)([], 4).shape == (0, 4)
