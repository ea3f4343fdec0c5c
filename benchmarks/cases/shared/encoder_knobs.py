"""Knobs of encoders that several cases take. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderKnobs:
    """Which towers, how large; the sizes are those of `small` towers, trained from scratch."""

    towers: str = "small"
    """small, open_clip:NAME[:PRETRAINED[:weights-only]] or hf:NAME_OR_FOLDER[+TEXT_NAME_OR_FOLDER]"""
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
class VitKnobs:
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
