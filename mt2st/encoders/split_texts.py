"""Texts that were split into words once, so that many vocabularies or tokenizers can encode them.

A tokenizer that is trained anew for each seed meets the same words in the same places. So the texts are split once, a
tokenizer encodes each distinct word once, and a text's ids are those of its words, one after another. That holds for
tokenizers that treat words alone: whole words (`WordVocabulary`) and byte-pair encoding behind a splitter
(`TextTokenizer`). It does not hold for one that looks across words, such as SentencePiece's unigram model.

Shapes: N texts, R of them asked for, T tokens kept of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np


class SplitTexts:
    """Texts as numbers of their words.

    Args:
        texts: N texts.
        split: a text → its words, in order.

    Attributes:
        words: the distinct words, by first appearance.
    """

    def __init__(self, texts: Iterable[str], split: Callable[[str], Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        flat: list[int] = []
        ends = [0]
        for text in texts:
            flat += [numbers.setdefault(word, len(numbers)) for word in split(text)]
            ends.append(len(flat))
        self.words = tuple(numbers)
        self._flat, self._ends = np.array(flat, dtype=np.int64), np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def counts(self, rows: np.ndarray) -> dict[str, int]:
        """How often each word occurs in the texts `rows`; words that do not occur are left out."""
        words, _ = self._words_of(rows)
        counts = np.bincount(words, minlength=len(self.words))
        return {self.words[word]: int(counts[word]) for word in np.flatnonzero(counts)}

    def encoded(self, rows: np.ndarray, ids: Sequence[Sequence[int]], length: int, pad: int) -> np.ndarray:
        """The first `length` ids of the texts `rows`, padded: [R, length] int64.

        Args:
            rows: which texts, int64 [R].
            ids: of each word of `words`, none to leave it out.
            length: T ≥ 0.
            pad: the id of padding.
        """
        table = np.array([each for word in ids for each in word], dtype=np.int64)
        sizes = np.array([len(word) for word in ids], dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        words, text = self._words_of(rows)
        found = _ranges(starts[words], sizes[words])
        text = np.repeat(text, sizes[words])
        per_text = np.bincount(text, minlength=len(rows))
        place = np.arange(len(text)) - np.repeat(np.cumsum(per_text) - per_text, per_text)
        kept = place < length
        result = np.full((len(rows), length), pad, dtype=np.int64)
        result[text[kept], place[kept]] = table[found[kept]]
        return result

    def _words_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the words of the texts `rows`, one text after another, and for each its place in `rows`."""
        sizes = self._ends[rows + 1] - self._ends[rows]
        return self._flat[_ranges(self._ends[rows], sizes)], np.repeat(np.arange(len(rows)), sizes)


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """start, start + 1, … start + size − 1 of each range, one range after another."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
