"""A trained model of texts: the class of one, or whether two are of one class; embeddings of texts and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt2st.encoders.architecture import TEXT
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.text_transformer import TextConfig, TextEncoder
from mt2st.encoders.words import BagEncoder, WordVocabulary
from mt2st.errors import Mt2stError
from mt2st.trained.asking import AskedModel, PossibleClass, paired, unit_rows, with_head
from mt2st.trained.description import Description, towers_folder

TOKENIZER_FILE = "tokenizer.json"
WORDS_FILE = "words.txt"


class TextModel(AskedModel):
    """A trained `TextEncoder` or `BagEncoder` and its head.

    Attributes:
        words: the vocabulary of a model of whole words; None = its tokens are subwords.
    """

    def __init__(self, encoder: Any, head: Any, description: Description, words: WordVocabulary | None = None) -> None:
        super().__init__(encoder, head, description)
        self.words, self._length = words, int(description.build["context_length"])

    def same(self, text: str, other: str) -> float:
        """Probability ∈ [0, 1] that two texts are of one class.

        Raises:
            Mt2stError: as `same_all`.
        """
        return float(self.same_all([text], [other])[0])

    def same_all(self, texts: Sequence[str], others: Sequence[str], *, batch_size: int = 256) -> np.ndarray:
        """Probability [P] float32 that `texts[i]` and `others[i]` are of one class.

        Raises:
            Mt2stError: the model was trained for another question, or numbers differ.
        """
        paired(texts, others)
        return self._compared(self._encoded(texts, batch_size), self._encoded(others, batch_size))

    def classify(self, text: str, *, top: int = 5) -> list[PossibleClass]:
        """The `top` most probable classes of a text, best first.

        Raises:
            Mt2stError: as `classify_all`.
        """
        return self.classify_all([text], top=top)[0]

    def classify_all(self, texts: Iterable[str], *, top: int = 1, batch_size: int = 256) -> list[list[PossibleClass]]:
        """The `top` most probable classes of each text, best first.

        Raises:
            Mt2stError: the model was trained for another question.
        """
        return self._classified(self._encoded(texts, batch_size), top)

    def embed_texts(self, texts: Iterable[str], *, batch_size: int = 256) -> np.ndarray:
        """Embeddings [N, D] float32 of texts, unit length, `batch_size` at a time."""
        return unit_rows(self._encoded(texts, batch_size))

    def embed_words(self, words: Iterable[str]) -> np.ndarray:
        """Word vectors [N, word width] float32, unit length.

        Raises:
            Mt2stError: a word that the vocabulary does not hold, or a model of subwords.
        """
        if self.words is None:
            raise Mt2stError(f"{self._name} has subwords, not words; use embed_texts")
        ids = []
        for word in words:
            found = self.words.index(word)
            if found is None:
                raise Mt2stError(
                    f"the word {word!r} is none of the {len(self.words) - 1} that {self._name} was trained with; "
                    "model.words.words lists them"
                )
            ids.append(found)
        with torch.inference_mode():
            return unit_rows(self.encoder.table.weight[torch.tensor(ids, dtype=torch.int64, device=self.device)])

    def _encoded(self, texts: Iterable[str], batch_size: int) -> Tensor:
        return self._raw(texts, lambda some: {"tokens": self._tokens(some)}, batch_size)

    def _tokens(self, texts: list[str]) -> Tensor:
        encode = self.encoder.tokenize if self.words is None else self.words.encode
        tokens: Tensor = encode(texts, self._length)
        return tokens


def restored(description: Description) -> TextModel:
    """The model of `model.json`: `build` holds "small", the fields of `TextConfig`, or "words", the sizes of
    `BagEncoder`, or for a checkpoint "hidden_width"; and "context_length", tokens that a text is cut to.

    Raises:
        Mt2stError: no model that this version can build, or the weights are those of another one.
    """
    words: WordVocabulary | None = None
    if "words" in description.build:
        listed = description.path(WORDS_FILE).read_text(encoding="utf-8").splitlines()
        words = WordVocabulary(listed, [0] * len(listed))  # counts serve training alone

    def build_encoder(build: Mapping[str, Any]) -> Any:
        if words is not None:
            return BagEncoder(len(words), **build["words"])
        if (folder := towers_folder(description)) is not None:
            hidden_width = int(build["hidden_width"])
            length = int(build["context_length"])
            return TextEncoder.pretrained(str(folder / TEXT), length, hidden_width=hidden_width, weights=False)
        tokenizer = TextTokenizer.load(description.path(TOKENIZER_FILE))
        return TextEncoder.small(TextConfig(**build["small"]), tokenizer)

    return TextModel(*with_head(description, build_encoder), description, words)
