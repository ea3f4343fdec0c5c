"""Models of an image tower and a text tower, with the preprocessing that belongs to their weights.

Shapes: B images or texts, S image side in pixels, T tokens, E width of the embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.cases.shared.vision_language import build_encoder
from benchmarks.suite.runs import begun_run
from mt2st.data.images import fit_image
from mt2st.encoders.open_clip_towers import OpenClipTowers, named_towers
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.errors import Mt2stError
from mt2st.training.checkpoint import newest_checkpoint

CONFIG = "open_clip_config.json"
# What open_clip raises on weights that do not fit; it checks some shapes with assertions.
_LOAD_ERRORS = (
    RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, SafetensorError,
)  # fmt: skip


@dataclass
class DualModel:
    """Towers that place images and texts in one space.

    Attributes:
        towers: `mt2st.encoders.Towers`, in evaluation mode.
        transform: a PIL image (RGB, any size) → [3, S, S], as the towers' `encode_image` takes it.
    """

    towers: Any
    transform: Callable[[Any], Tensor]

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return next(self.towers.parameters()).device

    @property
    def facts(self) -> dict[str, int]:
        """What a record says of the model, besides its name: parameters, image side in pixels, embedding width."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.towers.parameters()),
            "image_size": self.towers.image_size,
            "embedding_width": self.towers.embedding_width,
        }

    def to(self, device: str) -> None:
        """Bring the towers to a device."""
        self.towers.to(device)

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] of `transform` → [B, E] float32, unit length."""
        return nn.functional.normalize(self.towers.encode_image(pixels.to(self.device)).embedding.float(), dim=-1)

    @torch.inference_mode()
    def encode_texts(self, tokens: Tensor) -> Tensor:
        """[B, T] token ids, padded → [B, E] float32, unit length."""
        return nn.functional.normalize(self.towers.encode_text(tokens.to(self.device)).embedding.float(), dim=-1)


def open_clip_model(name: str, tag: str) -> DualModel:
    """An open_clip model by name and pretrained tag, or the path of a weights file.

    Raises:
        Mt2stError: as `named_towers`; no weights are named.
    """
    if not tag:
        raise Mt2stError(
            f"open_clip:{name} names no weights, and fresh ones have learned nothing; add a tag, such as "
            f"open_clip:ViT-B-32:laion2b_s34b_b79k, or give open_clip:FOLDER"
        )
    return _with_transform(named_towers(name, tag))


def open_clip_folder(folder: Path) -> DualModel:
    """A local checkpoint of open_clip: `open_clip_config.json` beside safetensors weights.

    Raises:
        Mt2stError: a file is missing, the weights are pickles or do not fit the configuration, or the text tower is one
            of transformers.
    """
    import open_clip

    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    except FileNotFoundError:
        raise Mt2stError(f"{path} is missing; a checkpoint of open_clip has one beside its weights") from None
    except (ValueError, LookupError, TypeError) as error:
        raise Mt2stError(f"{path} describes no open_clip model ({error}); copy it anew from where it came") from None
    if not any(folder.glob("*.safetensors")):
        raise Mt2stError(
            f"{folder} holds no safetensors weights; other formats can execute code when loaded, so convert them with "
            "safetensors.torch.save_file"
        )
    if config.get("text_cfg", {}).get("hf_model_name"):
        raise Mt2stError(
            f"{path} names a text tower of transformers, {config['text_cfg']['hf_model_name']}, which is not evaluated "
            "here; give a model whose text tower is open_clip's own"
        )
    place = f"local-dir:{folder}"
    try:
        model = open_clip.create_model(place, force_custom_text=True)
        tokenizer = open_clip.get_tokenizer(place)
    except _LOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise Mt2stError(
            f"open_clip cannot load {folder} ({reason}); the weights must be those of the model in {CONFIG}"
        ) from None
    inner = getattr(tokenizer, "tokenizer", None)  # of transformers; CLIP's own tokenizer pads with 0
    pad = int(inner.pad_token_id or 0) if inner is not None else 0
    return _with_transform(
        OpenClipTowers(model, tokenizer, context_length=int(tokenizer.context_length), pad_id=pad, mask_id=None)
    )


def hugging_face_model(name: str) -> DualModel:
    """A CLIP, SigLIP or SigLIP 2 model of transformers, from a folder or the Hub, with its own image processor.

    Raises:
        Mt2stError: as `hugging_face_towers`; the image processor is missing.
    """
    import transformers

    from mt2st.encoders.hugging_face import hugging_face_towers, load_pretrained

    towers = hugging_face_towers(name)
    if towers.vision.config.model_type == "siglip2_vision_model":  # of variable resolution: the towers cut the patches
        return _uint8_model(towers, towers.image_size)
    processor = load_pretrained(transformers.AutoImageProcessor, name, None)
    towers.add_module("normalize", nn.Identity())  # the processor does it

    def transform(picture: Any) -> Tensor:
        pixels: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    return DualModel(towers.eval(), transform)


def run_model(run_dir: Path) -> DualModel:
    """The towers of a trained run of a vision-language case, at its newest checkpoint.

    Raises:
        Mt2stError: the folder is no run, its case has no image and text towers, or no checkpoint is whole.
    """
    card, begun, _ = begun_run(run_dir)
    knobs: Any = begun  # what a case of towers has more than all cases
    if not hasattr(getattr(knobs, "encoder", None), "towers"):
        raise Mt2stError(
            f"{run_dir} is a run of {card.name}, whose model has no image and text towers; give a run of vqa or "
            "retrieval"
        )
    found = newest_checkpoint(run_dir / "checkpoints")
    if found is None:
        raise Mt2stError(f"{run_dir} holds no whole checkpoint; go on with it: python -m benchmarks resume {run_dir}")
    stored = run_dir / "tokenizer.json"
    if knobs.encoder.towers == "small" and not stored.is_file():
        raise Mt2stError(
            f"{stored} is missing, which a run writes when it ends; go on with it: python -m benchmarks resume "
            f"{run_dir}"
        )
    encoder = build_encoder(
        knobs.encoder, knobs.image_size, TextTokenizer.load(stored) if stored.is_file() else None, seed=0
    )
    prefix = "encoder."
    state = load_file(found[0] / "model.safetensors")
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    try:
        encoder.load_state_dict(own)
    except RuntimeError as error:
        raise Mt2stError(
            f"{found[0]} does not fit the model of {run_dir / 'config.json'} ({str(error).splitlines()[0]}); this code "
            "is of another version than the run"
        ) from None
    return _uint8_model(encoder.towers, knobs.image_size)


def _with_transform(towers: OpenClipTowers) -> DualModel:
    """Towers of open_clip with open_clip's own transform for evaluation."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(**towers.model.visual.preprocess_cfg)
    towers.add_module("normalize", nn.Identity())  # the transform does it
    return DualModel(towers.eval(), image_transform_v2(config, is_train=False))


def _uint8_model(towers: Any, image_size: int) -> DualModel:
    """Towers that normalise by themselves: pictures are made square as `prepare` does it by default."""

    def transform(picture: Any) -> Tensor:
        return torch.from_numpy(np.array(fit_image(picture, image_size, "squash"))).permute(2, 0, 1)

    return DualModel(towers.eval(), transform)
