"""Generative vision-language models of transformers: a picture and a question in, a text out. Never remote code.

Questions are answered in batches, greedily. Prompts are padded on the left, so that every answer starts where its
prompt ends. A model with a chat template is asked through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mt2st.encoders.hugging_face import load_pretrained
from mt2st.errors import Mt2stError


@dataclass
class GenerativeModel:
    """A model for image-text-to-text with its own processor (tokenizer, image processor, chat template)."""

    model: Any
    processor: Any

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the model, besides its name."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "architecture": type(self.model).__name__,
            "chat_template": bool(self.processor.chat_template),
        }

    def to(self, device: str) -> None:
        """Bring the model to a device."""
        self.model.to(device)

    def prompt(self, question: str) -> str:
        """The text that asks `question` about one picture."""
        if not self.processor.chat_template:
            return f"{getattr(self.processor, 'image_token', '<image>')}\n{question}\n"
        content = [{"type": "image"}, {"type": "text", "text": question}]
        asked: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return asked

    def inputs(self, pictures: Sequence[Any], questions: Sequence[str]) -> Any:
        """What the model takes: PIL pictures and questions of one batch, padded on the left."""
        return self.processor(
            images=[[picture] for picture in pictures],
            text=[self.prompt(question) for question in questions],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.device)

    @torch.inference_mode()
    def generate(self, inputs: Any, new_tokens: int) -> list[str]:
        """Greedy answers, each of at most `new_tokens` tokens."""
        tokens = self.model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, num_beams=1)
        # A decoder continues its prompt; a model with an encoder starts anew.
        start = 0 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        texts = self.processor.batch_decode(tokens[:, start:], skip_special_tokens=True)
        return [text.strip() for text in texts]


def is_generative(model_type: str) -> bool:
    """Whether transformers knows a model of this type as one for image-text-to-text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    return model_type in KNOWN


def generative_model(name: str) -> GenerativeModel:
    """A model from a folder or the Hub, in float32 and evaluation mode; safetensors only, no code of its own.

    Raises:
        Mt2stError: it cannot be loaded, its processor is missing, or its tokenizer can neither pad nor end a text.
    """
    import transformers

    if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
        raise Mt2stError(
            f"{name!r} holds no safetensors weights; other formats can execute code when loaded, so save the model "
            "with save_pretrained"
        )
    model = load_pretrained(transformers.AutoModelForImageTextToText, name, None, use_safetensors=True).float().eval()
    processor = load_pretrained(transformers.AutoProcessor, name, None)
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise Mt2stError(f"{name!r} holds no processor of pictures and texts; save it with processor.save_pretrained")
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise Mt2stError(
                f"the tokenizer of {name!r} has neither a padding nor an end token; set one and save it again with "
                "save_pretrained"
            )
        tokenizer.pad_token = tokenizer.eos_token
    settings = model.generation_config
    settings.temperature = settings.top_p = settings.top_k = None  # greedy; left in, transformers warns of them
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    return GenerativeModel(model, processor)
