"""Word embeddings: a vocabulary of whole words, and a text as the mean of its words' vectors.

That is CBOW, or a deep averaging network. The FLOP ledger counts embedding lookups as 0: they copy rows and multiply
nothing. Gradients are dense: with 12,000 words of 64 numbers a step with sparse ones takes twice the time, and they pay
from about 50,000 words on (benchmarks/cases/representation/README.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from mt2st.batch import Batch
from mt2st.encoders._lazy import LazyFeatures
from mt2st.encoders.split_texts import SplitTexts, WordwiseIds
from mt2st.errors import Mt2stError

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def words_of(text: str) -> list[str]:
    """Lower-case words of a text; "_" and "-" divide.

    >>> words_of("Domestic_dog, man's friend")
    ['domestic', 'dog', "man's", 'friend']
    """
    return _WORD.findall(text.lower())


class WordVocabulary:
    """The most frequent words of the training texts. Id 0 is padding; words outside are left out of a text.

    Attributes:
        words: id → word; words[0] is "".
        counts: [V] int64, occurrences in the training texts; 0 for padding.
        pad_id: 0.
    """

    pad_id = 0

    def __init__(self, words: Sequence[str], counts: Sequence[int]) -> None:
        self.words = ("", *words)
        self.counts = torch.tensor([0, *counts], dtype=torch.int64)
        self._index = {word: at for at, word in enumerate(self.words) if at}

    @classmethod
    def build(cls, texts: Iterable[str], size: int, *, at_least: int = 2) -> WordVocabulary:
        """The `size` most frequent words that occur `at_least` times; ties in alphabetical order.

        Raises:
            Mt2stError: no word is that frequent.
        """
        return cls.most_frequent(Counter(word for text in texts for word in words_of(text)), size, at_least=at_least)

    @classmethod
    def most_frequent(cls, counts: Mapping[str, int], size: int, *, at_least: int = 2) -> WordVocabulary:
        """The same from counted words.

        Raises:
            Mt2stError: no word is that frequent.
        """
        kept = sorted((word for word in counts if counts[word] >= at_least), key=lambda word: (-counts[word], word))[
            :size
        ]
        if not kept:
            raise Mt2stError(
                f"the training texts have no word that occurs {at_least} times; give more text, or at_least=1"
            )
        return cls(kept, [counts[word] for word in kept])

    @classmethod
    def counted(cls, words: Sequence[str], texts: Iterable[str]) -> WordVocabulary:
        """These words in this order, counted in other texts than they come from.

        Raises:
            Mt2stError: none of them occurs.
        """
        counts = Counter(word for text in texts for word in words_of(text))
        if not any(counts[word] for word in words):
            raise Mt2stError(
                "none of the vocabulary's words occurs in the training texts; use one of the same language"
            )
        return cls(words, [counts[word] for word in words])

    def wordwise(self, texts: SplitTexts) -> Callable[[Sequence[str], int], Tensor]:
        """`encode` for texts that `texts`, made with `words_of`, splits once for several vocabularies."""
        ids = WordwiseIds(texts, lambda word: (self._index[word],) if word in self._index else (), self.pad_id)
        return lambda texts, length: torch.from_numpy(ids(texts, length))

    def __len__(self) -> int:
        return len(self.words)

    def index(self, word: str) -> int | None:
        """Id of a single word, None if it is outside."""
        return self._index.get(word.lower())

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Texts → [N, length] int64: ids of their first `length` known words, padded with 0."""
        found = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids = [self._index[word] for word in words_of(text) if word in self._index][:length]
            found[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return found


class BagEncoder(nn.Module):
    """Mean of word vectors, then one hidden layer (deep averaging network, Iyyer et al., ACL 2015).

    Args:
        vocabulary_size: V, padding included.
        word_width: D of word vectors.
        width: of the hidden layer, which is the embedding that heads see.
        dropout: share of words left out of a text in training, in [0, 1); 0 = none.
    """

    def __init__(self, vocabulary_size: int, *, word_width: int = 64, width: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.word_width, self.width, self.dropout = word_width, width, dropout
        self.table = nn.Embedding(vocabulary_size, word_width, padding_idx=WordVocabulary.pad_id)
        nn.init.uniform_(self.table.weight, -0.5 / word_width, 0.5 / word_width)  # as in word2vec
        with torch.no_grad():
            self.table.weight[WordVocabulary.pad_id].zero_()
        self.norm = nn.LayerNorm(word_width)
        self.hidden = nn.Linear(word_width, width)

    def features(self, batch: Batch) -> BagFeatures:
        """Lazy features of one batch; nothing is computed before something asks."""
        return BagFeatures(self, batch)

    def mean(self, tokens: Tensor) -> Tensor:
        """Mean vector of the real tokens [..., T] → [..., D]; zeros where there is none."""
        real = torch.ne(tokens, WordVocabulary.pad_id)
        if self.training and self.dropout:
            real = real & (torch.rand(tokens.shape, device=tokens.device) >= self.dropout)
        weights = real.to(self.table.weight.dtype)[..., None]
        vectors: Tensor = self.table(tokens)
        return (vectors * weights).sum(-2) / weights.sum(-2).clamp_min(1.0)


class BagFeatures(LazyFeatures):
    """Features of a batch of `tokens` [B, T], and of `lemma_tokens`, `hypernym_tokens` [B, L]."""

    encoder: BagEncoder

    @cached_property
    def embedding(self) -> Tensor:
        """[B, width]."""
        encoder = self.encoder
        hidden: Tensor = torch.relu(encoder.hidden(encoder.norm(encoder.mean(self["tokens"]))))
        return hidden

    @cached_property
    def lemma_embedding(self) -> Tensor:
        """[B, D], mean of the lemma's word vectors."""
        return self.encoder.mean(self["lemma_tokens"])

    @cached_property
    def hypernym_embedding(self) -> Tensor:
        """[B, D], mean of the hypernym's word vectors."""
        return self.encoder.mean(self["hypernym_tokens"])
