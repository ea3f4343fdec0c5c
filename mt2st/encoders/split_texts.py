"""Texts that are split into words once, so that many vocabularies or tokenizers can encode them.

A tokenizer that is trained anew for each seed meets nearly the same texts. So each text is split once, each tokenizer
encodes a distinct word once, and a text's ids are those of its words, one after another. That holds for tokenizers that
treat words one by one: whole words (`WordVocabulary`), and byte-pair encoding behind a splitter (`TextTokenizer`). It
does not hold for one that looks across words.

Shapes: R texts, T ids kept of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


class SplitTexts:
    """Texts as numbers of their words; it remembers every text that it was given.

    Args:
        split: a text → its words, in order.

    Attributes:
        words: the distinct words, by first appearance.
    """

    def __init__(self, split: Callable[[str], Sequence[str]]) -> None:
        self.words: list[str] = []
        self._split = split
        self._numbers: dict[str, int] = {}  # of words
        self._rows: dict[str, int] = {}  # of texts
        self._flat: list[int] = []
        self._ends = [0]
        self._arrays = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)

    def words_of(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the words of the texts, one text after another, int64; and how many each text has, int64 [R]."""
        rows = np.array([self._row(text) for text in texts], dtype=np.int64)
        if len(self._arrays[1]) < len(self._ends):
            self._arrays = np.array(self._flat, dtype=np.int64), np.array(self._ends, dtype=np.int64)
        flat, ends = self._arrays
        sizes = ends[rows + 1] - ends[rows]
        return flat[_ranges(ends[rows], sizes)], sizes

    def counts(self, texts: Sequence[str]) -> dict[str, int]:
        """How often each word occurs in the texts; words that do not occur are left out."""
        counts = np.bincount(self.words_of(texts)[0], minlength=len(self.words))
        return {self.words[word]: int(counts[word]) for word in np.flatnonzero(counts)}

    def _row(self, text: str) -> int:
        if text not in self._rows:
            for word in self._split(text):
                if word not in self._numbers:
                    self._numbers[word] = len(self.words)
                    self.words.append(word)
                self._flat.append(self._numbers[word])
            self._ends.append(len(self._flat))
            self._rows[text] = len(self._rows)
        return self._rows[text]


class WordwiseIds:
    """Ids of texts, each distinct word encoded once.

    Args:
        texts: splits the texts.
        ids_of: a word → its ids, in order; none to leave it out.
        pad: the id of padding.
    """

    def __init__(self, texts: SplitTexts, ids_of: Callable[[str], Sequence[int]], pad: int) -> None:
        self._texts, self._ids_of, self._pad = texts, ids_of, pad
        self._ids: list[Sequence[int]] = []  # of the texts' words

    def __call__(self, texts: Sequence[str], length: int) -> np.ndarray:
        """The first `length` ids of each text, padded: [R, length] int64."""
        words, word_counts = self._texts.words_of(texts)
        self._ids += [self._ids_of(word) for word in self._texts.words[len(self._ids) :]]
        table = np.array([each for word in self._ids for each in word], dtype=np.int64)
        sizes = np.array([len(word) for word in self._ids], dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        text = np.repeat(np.repeat(np.arange(len(texts)), word_counts), sizes[words])
        per_text = np.bincount(text, minlength=len(texts))
        place = np.arange(len(text)) - np.repeat(np.cumsum(per_text) - per_text, per_text)
        kept = place < length
        found = np.full((len(texts), length), self._pad, dtype=np.int64)
        found[text[kept], place[kept]] = table[_ranges(starts[words], sizes[words])[kept]]
        return found


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """start, start + 1, … start + size − 1 of each range, one range after another."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
