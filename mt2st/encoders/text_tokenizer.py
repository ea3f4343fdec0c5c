"""A subword tokenizer trained on the training texts and saved with the run (byte-pair encoding, by `tokenizers`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from mt2st.encoders.split_texts import SplitTexts, WordwiseIds
from mt2st.errors import Mt2stError
from mt2st.files import write_text

SPECIAL_TOKENS = ("[PAD]", "[START]", "[END]", "[MASK]")
_NORMALIZER = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
_SPLITTER = pre_tokenizers.ByteLevel(add_prefix_space=True)


class TextTokenizer:
    """Byte-level BPE, so that no text holds an unknown token; case-folded, framed by [START] … [END]."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS]
        if None in ids:
            raise Mt2stError(f"the tokenizer lacks special tokens {SPECIAL_TOKENS}; train it with TextTokenizer.train")
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # "[MASK]" spelled out in a text is text like any other
        self.pad_id, self.start_id, self.end_id, self.mask_id = (int(index) for index in ids if index is not None)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> TextTokenizer:
        """Train on `texts` (training texts only). The result depends on the texts and the size alone.

        Args:
            texts: the training texts.
            vocabulary_size: upper limit of tokens; at least 256 bytes + 4 special ones.
        """
        smallest = 256 + len(SPECIAL_TOKENS)
        if vocabulary_size < smallest:
            raise Mt2stError(
                f"vocabulary_size = {vocabulary_size} must be at least {smallest}: 256 bytes and {len(SPECIAL_TOKENS)} "
                "special ones"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = _NORMALIZER
        tokenizer.pre_tokenizer = _SPLITTER
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        start, end = (tokenizer.token_to_id(token) for token in ("[START]", "[END]"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[START] $A [END]", special_tokens=[("[START]", start), ("[END]", end)]
        )
        return cls(tokenizer)

    @property
    def vocabulary_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: list[str], length: int) -> Tensor:
        """Texts → [N, length] int64, padded; longer texts are cut, keeping [END]."""
        self._tokenizer.enable_truncation(max_length=length)
        self._tokenizer.enable_padding(length=length, pad_id=self.pad_id, pad_token="[PAD]")
        encoded = self._tokenizer.encode_batch(texts)
        return torch.tensor([item.ids for item in encoded], dtype=torch.int64).reshape(len(texts), length)

    @staticmethod
    def split(text: str) -> list[str]:
        """The words that byte-pair encoding treats one by one, their bytes spelled as letters."""
        return [word for word, _ in _SPLITTER.pre_tokenize_str(_NORMALIZER.normalize_str(text))]

    def wordwise(self, texts: SplitTexts) -> Callable[[Sequence[str], int], Tensor]:
        """`encode` for texts that `texts`, made with `split`, splits once for several tokenizers; lengths from 2."""
        model = self._tokenizer.model
        ids = WordwiseIds(texts, lambda word: [token.id for token in model.tokenize(word)], self.pad_id)

        def encode(texts: Sequence[str], length: int) -> Tensor:
            inside = ids(texts, length - 2)
            framed = np.full((len(texts), length), self.pad_id, dtype=np.int64)
            framed[:, 0], framed[:, 1:-1] = self.start_id, inside
            framed[np.arange(len(texts)), 1 + (inside != self.pad_id).sum(1)] = self.end_id
            return torch.from_numpy(framed)

        return encode

    def lengths(self, texts: list[str]) -> list[int]:
        """Number of tokens of each text, frame included, before any cut."""
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        return [len(item.ids) for item in self._tokenizer.encode_batch(texts)]

    def to_json(self) -> str:
        """The tokenizer as JSON text; no truncation or padding state in it."""
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        return str(self._tokenizer.to_str())

    def save(self, path: Path) -> None:
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """Read what `save` wrote.

        Raises:
            Mt2stError: the file is missing or is not a tokenizer.
        """
        if not path.is_file():
            raise Mt2stError(f"tokenizer file {path} is missing; it is saved with the run that trained it")
        try:
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except Mt2stError:
            raise
        except Exception as error:  # noqa: BLE001 - the Rust binding raises bare Exception for any malformed file
            raise Mt2stError(f"{path} is not a tokenizer file ({error}); retrain or restore it") from None
