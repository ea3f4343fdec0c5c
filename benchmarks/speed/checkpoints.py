"""Models with random weights, written as true checkpoints: for measurements and tests without any download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

CHAT = (
    "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}answer :{% endif %}"
)


def write_checkpoint(folder: Path, model: dict[str, Any], seed: int = 0) -> None:
    """A random open_clip model in open_clip's own local format. `model` is its `model_cfg`."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    save_file(open_clip.CLIP(**model).state_dict(), folder / "open_clip_model.safetensors")
    pixels = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    value = {"model_cfg": model, "preprocess_cfg": {**pixels, "resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(value))


def write_llava(
    folder: Path, words: Sequence[str], *, width: int = 32, patch: int = 16, chat_template: bool = True
) -> None:
    """A random LLaVA model of transformers: CLIP vision, Llama, a tokenizer of whole `words`, its processor.

    Pictures have 2 × 2 patches of `patch` pixels.
    """
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
    vocabulary = {word: at for at, word in enumerate(dict.fromkeys((*special, *words)))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2}
    side = 2 * patch
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**sizes, image_size=side, patch_size=patch),
        text_config=transformers.LlamaConfig(
            **sizes, vocab_size=len(tokenizer), max_position_embeddings=128, bos_token_id=1, eos_token_id=2,
            pad_token_id=3,
        ),
        image_token_index=vocabulary["<image>"],
        image_seq_length=4,
    )  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(config)
    with torch.no_grad():  # weights as large as trained ones, so that answers depend on picture and question
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)
    transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT if chat_template else None,
    ).save_pretrained(folder)
