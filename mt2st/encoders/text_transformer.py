"""A text transformer alone, by transformers: a small BERT trained from scratch, or any bidirectional checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from mt2st.batch import Batch
from mt2st.encoders import TowerOutput
from mt2st.encoders._lazy import LazyFeatures
from mt2st.encoders.fine_tuning import Part, Source
from mt2st.encoders.hugging_face import check_vocabulary, load_model, load_tokenizer, longest_text, require_input
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.errors import Mt2stError, check_range


@dataclass(frozen=True)
class TextConfig:
    """Size of a BERT trained from scratch."""

    width: int = 64
    """width D of tokens"""
    layers: int = 2
    """transformer layers"""
    heads: int = 4
    """attention heads"""
    mlp_ratio: float = 2.0
    """hidden width of MLPs as a multiple of the width"""
    context_length: int = 24
    """tokens a text is cut to"""

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise Mt2stError(
                f"width = {self.width} is no multiple of heads = {self.heads}; choose heads that divide it"
            )


class TextEncoder(nn.Module):
    """A bidirectional transformer with the features that text objectives pull from.

    Build it with `.small` or `.pretrained`.

    The embedding of a text is the mean of its real tokens, with `hidden_width` a hidden layer over it, which is new and
    always trained.
    """

    def __init__(
        self,
        model: Any,
        *,
        context_length: int,
        vocabulary_size: int,
        pad_id: int,
        mask_id: int,
        frame_ids: tuple[int, ...],
        tokenize: Any,
        loaded: bool = False,
        hidden_width: int = 0,
    ) -> None:
        super().__init__()
        self._loaded = loaded
        self.model = model
        self.token_width = int(model.config.hidden_size)
        self.width = hidden_width or self.token_width
        self.hidden: nn.Module = nn.Identity()
        if hidden_width:
            self.hidden = nn.Sequential(
                nn.LayerNorm(self.token_width), nn.Linear(self.token_width, hidden_width), nn.ReLU()
            )
        self.context_length, self.vocabulary_size = context_length, vocabulary_size
        self.pad_id, self.mask_id, self.frame_ids = pad_id, mask_id, frame_ids
        self._tokenize = tokenize

    @classmethod
    def small(cls, config: TextConfig, tokenizer: TextTokenizer) -> TextEncoder:
        """A new BERT with weights from torch's global generator."""
        sizes = transformers.BertConfig(
            vocab_size=tokenizer.vocabulary_size,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=round(config.mlp_ratio * config.width),
            max_position_embeddings=config.context_length,
            type_vocab_size=1,
            pad_token_id=tokenizer.pad_id,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.0,
        )
        return cls(
            transformers.BertModel(sizes, add_pooling_layer=False),
            context_length=config.context_length,
            vocabulary_size=tokenizer.vocabulary_size,
            pad_id=tokenizer.pad_id,
            mask_id=tokenizer.mask_id,
            frame_ids=(tokenizer.start_id, tokenizer.end_id),
            tokenize=tokenizer.encode,
        )

    @classmethod
    def pretrained(
        cls,
        name: str,
        context_length: int,
        revision: str | None = None,
        *,
        hidden_width: int = 0,
        weights: bool = True,
    ) -> TextEncoder:
        """A bidirectional checkpoint with its tokenizer, in safetensors.

        `name` is a Hub name, or a folder that `save_pretrained` wrote. `weights` False: fresh ones; the folder need
        hold no others.

        Raises:
            Mt2stError: it cannot be loaded, takes no text, is causal or an encoder-decoder, has no tokenizer or no mask
                or padding token, or takes fewer tokens than `context_length`.
        """
        model = load_model(name, revision, weights)
        require_input(model, "input_ids", name, "text")
        words = load_tokenizer(name, revision)
        if words.mask_token_id is None or words.pad_token_id is None or not hasattr(model.config, "hidden_size"):
            raise Mt2stError(
                f"{name!r} ({model.config.model_type}) has no mask or padding token, so it is no masked language "
                "model; give a bidirectional checkpoint such as a BERT or RoBERTa"
            )
        check_vocabulary(words, model, name)
        check_range(
            f"context_length of {name!r}",
            context_length,
            1,
            longest_text(model, words),
            "that is what the model was made for",
        )

        def tokenize(texts: list[str], length: int) -> Tensor:
            found = words(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            ids: Tensor = found["input_ids"]
            return ids

        special = {words.cls_token_id, words.sep_token_id, words.bos_token_id, words.eos_token_id} - {None}
        return cls(
            model,
            context_length=context_length,
            vocabulary_size=int(model.get_input_embeddings().num_embeddings),
            pad_id=int(words.pad_token_id),
            mask_id=int(words.mask_token_id),
            frame_ids=tuple(sorted(special)),
            tokenize=tokenize,
            loaded=True,
            hidden_width=hidden_width,
        )

    def token_table(self) -> Tensor | None:
        """The token embeddings [V, D] of a checkpoint, to which a language-model head is tied; else None."""
        table: Tensor | None = self.model.get_input_embeddings().weight if self._loaded else None
        return table

    def parts(self) -> dict[str, Part]:
        """What can be tuned or frozen: "text"."""
        return {"text": Part(self.model, self._loaded, Source(self, "encode_text", self.pad_id))}

    def tokenize(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """Texts → [N, length] int64, cut and padded; None = `context_length`."""
        tokens: Tensor = self._tokenize(list(texts), length or self.context_length)
        return tokens

    def features(self, batch: Batch) -> TransformerFeatures:
        """Lazy features of one batch; nothing is computed before something asks."""
        return TransformerFeatures(self, batch)

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] → [B, T, D]."""
        encoded: Tensor = self.model(input_ids=tokens, attention_mask=self.real(tokens).long()).last_hidden_state
        return encoded

    def real(self, tokens: Tensor) -> Tensor:
        """[B, T] bool: False at padding."""
        return torch.ne(tokens, self.pad_id)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] → [B, width]."""
        embedding: Tensor = self.hidden(self.encode_text(tokens).embedding)
        return embedding

    def encode_text(self, tokens: Tensor) -> TowerOutput:
        """Tokens [B, T] → [B, T, D] and their mean [B, D] over the real ones."""
        encoded, weights = self.encode(tokens), self.real(tokens)[..., None].to(torch.float32)
        return TowerOutput(encoded, (encoded * weights).sum(1) / weights.sum(1).clamp_min(1.0))


class TransformerFeatures(LazyFeatures):
    """Features of a batch of `tokens` [B, T], and of `lemma_tokens`, `hypernym_tokens` [B, L]."""

    encoder: TextEncoder

    @cached_property
    def embedding(self) -> Tensor:
        """[B, D]."""
        return self.encoder.embed(self["tokens"])

    @cached_property
    def lemma_embedding(self) -> Tensor:
        """[B, D]."""
        return self.encoder.embed(self["lemma_tokens"])

    @cached_property
    def hypernym_embedding(self) -> Tensor:
        """[B, D]."""
        return self.encoder.embed(self["hypernym_tokens"])
