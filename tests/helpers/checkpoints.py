"""Tiny checkpoints of transformers, with their tokenizers, written by `save_pretrained`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("a", "red", "blue", "circle", "square", "is", "it", "?")
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**SIZES, "image_size": 16, "patch_size": 8}
TEXTS = ["a red circle", "is it blue ?", "square"]


def clip_tokenizer() -> Any:
    letters = sorted({letter for word in WORDS for letter in word})
    pieces = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(
        vocab={piece: at for at, piece in enumerate(pieces)}, merges=[], model_max_length=24
    )


def word_tokenizer(special: tuple[str, ...], **roles: str) -> Any:
    """A tokenizer.json of whole words, ending every text with the role `eos_token` if there is one."""
    vocabulary = {word: at for at, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=roles["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if "eos_token" in roles:
        end = roles["eos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, vocabulary[end])]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=10, padding_side="right", **roles
    )


def save(folder: Path, config: Any, tokenizer: Any = None, preprocessor: dict[str, Any] | None = None) -> str:
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return str(folder)


def clip(folder: Path) -> str:
    tokenizer = clip_tokenizer()
    ids = {
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 24, **ids}
    return save(folder, transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8), tokenizer)


def siglip(folder: Path) -> str:
    tokenizer = word_tokenizer(("<unk>", "</s>"), unk_token="<unk>", pad_token="</s>", eos_token="</s>")
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 10, "projection_size": 16}
    return save(folder, transformers.SiglipConfig(text_config=text, vision_config=VISION), tokenizer)


def siglip2(folder: Path) -> str:
    tokenizer = word_tokenizer(("<pad>", "<eos>", "<unk>"), unk_token="<unk>", pad_token="<pad>", eos_token="<eos>")
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 10, "projection_size": 16}
    vision = {**SIZES, "patch_size": 8, "num_patches": 4}
    return save(folder, transformers.Siglip2Config(text_config=text, vision_config=vision), tokenizer)


def vit(folder: Path, **more: Any) -> str:
    return save(folder, transformers.ViTConfig(**VISION), **more)


def dinov2(folder: Path) -> str:
    return save(folder, transformers.Dinov2Config(**VISION, mlp_ratio=1))


def resnet(folder: Path) -> str:
    return save(folder, transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]))


def bert(folder: Path, **sizes: Any) -> str:
    tokenizer = word_tokenizer(("[PAD]", "[UNK]", "[MASK]"), unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]")
    sizes = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 32, **sizes}
    return save(folder, transformers.BertConfig(**sizes), tokenizer)


def open_clip_folder(folder: Path, *, sigmoid: bool = False) -> str:
    """A folder that open_clip loads as local-dir:FOLDER; with `sigmoid` like a SigLIP's, with a tokenizer of words."""
    import open_clip

    folder.mkdir(parents=True)
    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    }
    if sigmoid:
        words = word_tokenizer(("<unk>", "</s>"), unk_token="<unk>", pad_token="</s>", eos_token="</s>")
        words.save_pretrained(folder)
        text |= {"vocab_size": len(words), "no_causal_mask": True, "pool_type": "last", "hf_tokenizer_name": "."}
        config |= {"init_logit_bias": -10.0, "custom_text": True}
    pixels = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "resize_mode": "squash", "interpolation": "bilinear"}
    written = {"model_cfg": {**config, "text_cfg": text}, "preprocess_cfg": pixels}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    safetensors.torch.save_model(model, str(folder / "open_clip_model.safetensors"))
    return str(folder)


DUAL = {"clip": clip, "siglip": siglip, "siglip2": siglip2}
