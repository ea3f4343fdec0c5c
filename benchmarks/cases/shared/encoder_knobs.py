"""Knobs of encoders that several cases take. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mt2st.errors import Mt2stError, check_range, unknown_name

CacheFrozen = Literal["float32", "float16", "off"]


@dataclass(frozen=True, kw_only=True)
class FineTuningKnobs:
    """How the towers of an encoder are tuned; `mt2st.encoders.fine_tuning` does it."""

    learning_rate: float | None = None
    """peak learning rate of pretrained parameters; None = 1e-4 for hf: and open_clip: checkpoints, with LoRA 1e-3.
    Small towers have nothing pretrained: they train at the strategy's rate. At 2e-3, which suits those,
    all-MiniLM-L6-v2 falls to the majority class in the text case; at 1e-4 it does not"""
    layer_decay: float = 1.0
    """factor on the learning rate of pretrained parameters from one layer to the one below; 1 = off"""
    freeze: tuple[str, ...] = ()
    """parts that are not trained: image, text, temperature; or up to a layer, such as text:0 (its embeddings); or for a
    time, such as text@until=0.3 (then it is trained) or text@from=0.7 (until then it is)"""
    cache_frozen: CacheFrozen = "float32"
    """a tower that is frozen whole is run once, and its outputs are kept in the data folder in this precision for all
    runs; one that is frozen whole from a point on computes each input once more, in memory; off = at every step"""
    gradient_checkpointing: bool = False
    """compute the towers' activations again in the backward pass: less memory, another forward pass of FLOPs"""
    lora_rank: int = 0
    """rank of LoRA in the pretrained towers, whose own weights are then fixed; 0 = none; needs the extra lora"""

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise Mt2stError(
                f"encoder.learning_rate = {self.learning_rate!r} must be finite and > 0, for example 1e-4; "
                "--encoder.freeze keeps a tower as it is"
            )
        check_range("encoder.layer_decay", self.layer_decay, 1e-6, 1.0, "it is a factor a layer, for example 0.9")
        if self.cache_frozen not in (known := get_args(CacheFrozen)):
            raise unknown_name("encoder.cache_frozen", self.cache_frozen, known)
        if self.lora_rank < 0:
            raise Mt2stError(f"encoder.lora_rank = {self.lora_rank} must be ≥ 0; 0 = no LoRA")

    @property
    def lora_build(self) -> dict[str, Any]:
        """What `mt2st.trained` must know of LoRA, whose matrices are part of the model; {} without it."""
        return {"lora_rank": self.lora_rank, "freeze": list(self.freeze)} if self.lora_rank else {}


@dataclass(frozen=True, kw_only=True)
class TextTowerKnobs(FineTuningKnobs):
    """A pretrained text encoder of a gloss case, where the case's own is not taken."""

    model: str
    """the case's own, or pip:PACKAGE or hf:NAME_OR_FOLDER of a bidirectional checkpoint"""
    context_length: int = 24
    """tokens a gloss is cut to"""
    hidden_width: int = 0
    """width of a new hidden layer over a checkpoint's embedding, which all tasks share; 0 = none. Where the checkpoint
    is frozen, tasks have nothing else to share"""


@dataclass(frozen=True)
class EncoderKnobs(FineTuningKnobs):
    """Which towers, how large; the sizes are those of `small` towers, trained from scratch."""

    towers: str = "small"
    """small, open_clip:NAME[:PRETRAINED[:weights-only]], hf:NAME_OR_FOLDER[+TEXT_NAME_OR_FOLDER], or a pair of them,
    images first, such as small+hf:TEXT"""
    width: int = 64
    """width of image and text tokens"""
    layers: int = 1
    """transformer layers of the image tower"""
    text_layers: int = 1
    """transformer layers of the text tower"""
    heads: int = 2
    """attention heads"""
    mlp_ratio: float = 2.0
    """hidden width of MLPs as a multiple of the width"""
    stem_width: int = 16
    """channels of the first of three stem convolutions"""
    embedding_width: int = 64
    """width of the common embedding space"""
    fusion_layers: int = 0
    """transformer layers of the fusion; 0 = multiplication only"""
    fusion_width: int = 64
    """width of fused tokens"""
    context_length: int = 24
    """text tokens a text is cut to; shorter sets use fewer"""
    vocabulary_size: int = 400
    """subword tokens at most, for tokenizers trained on the training texts"""


@dataclass(frozen=True)
class VitKnobs(FineTuningKnobs):
    """Which vision transformer; the sizes are those of the small one, trained from scratch."""

    model: str = "small"
    """small, or hf:NAME_OR_FOLDER of a ViT checkpoint"""
    patch_size: int = 4
    """height and width of a patch, in pixels"""
    width: int = 64
    """width of tokens"""
    layers: int = 2
    """transformer layers"""
    heads: int = 4
    """attention heads"""
    mlp_ratio: float = 2.0
    """hidden width of MLPs as a multiple of the width"""
