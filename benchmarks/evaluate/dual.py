"""Loading models of two towers: checkpoints of open_clip and of transformers, and runs of the suite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from benchmarks.embeddings.trained import trained_run
from benchmarks.evaluate.model import DualModel
from mt2st.data.images import fit_image
from mt2st.encoders import TowerOutput
from mt2st.encoders.open_clip_towers import OpenClipTowers, named_towers
from mt2st.errors import Mt2stError

CONFIG = "open_clip_config.json"
# What open_clip raises on weights that do not fit; it checks some shapes with assertions.
_LOAD_ERRORS = (
    RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, SafetensorError,
)  # fmt: skip


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
            of transformers whose configuration or tokenizer is not here.
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
    text = config.get("text_cfg", {})
    hybrid = _text_of_transformers(folder, text) if text.get("hf_model_name") else {}
    place = f"local-dir:{folder}"
    try:
        model = open_clip.create_model(place, force_custom_text=True, **hybrid)
        tokenizer = open_clip.get_tokenizer(place)
    except _LOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise Mt2stError(
            f"open_clip cannot load {folder} ({reason}); the weights must be those of the model in {CONFIG}"
        ) from None
    inner = getattr(tokenizer, "tokenizer", None)  # of transformers; CLIP's own tokenizer pads with 0
    pad = int(inner.pad_token_id or 0) if inner is not None else 0
    if hybrid:
        return _with_transform(HybridTowers(model, tokenizer))
    return _with_transform(
        OpenClipTowers(model, tokenizer, context_length=int(tokenizer.context_length), pad_id=pad, mask_id=None)
    )


def _text_of_transformers(folder: Path, text: Mapping[str, Any]) -> dict[str, Any]:
    """What open_clip's `create_model` is told of a text tower of transformers, so that it reads local files alone.

    The tower's weights are in the checkpoint, and its tokenizer is beside them. Its configuration is looked for where
    `hf_model_name` says, if that is a folder, then in the checkpoint's own, then in the Hub's cache.

    Raises:
        Mt2stError: the configuration or the tokenizer is missing, or brings its own code.
    """
    import transformers

    from mt2st.encoders.hugging_face import load_pretrained, load_tokenizer

    name = str(text["hf_model_name"])
    own = folder / "config.json"
    source = name if Path(name).is_dir() or not own.is_file() else str(folder)
    try:
        load_pretrained(transformers.AutoConfig, source, None)
    except Mt2stError as error:
        raise Mt2stError(
            f"{folder / CONFIG} names a text tower of transformers, {name}, whose configuration is not here; where "
            f"there is a network, run hf download {name} config.json --local-dir FOLDER, and bring that file to {own} "
            f"({error})"
        ) from None
    load_tokenizer(str(folder))
    return {"text_cfg": {**text, "hf_model_name": source, "hf_model_pretrained": False}}


class HybridTowers(nn.Module):
    """An open_clip model whose text tower is one of transformers: embeddings alone, which is what evaluation needs.

    Such a tower masks its padding by itself, so texts may be cut to the longest of their batch.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenize = tokenizer
        self.pad_id = int(model.text.config.pad_token_id)
        size = model.visual.image_size
        self.image_size = int(size[0] if isinstance(size, tuple | list) else size)
        self.normalize: nn.Module = nn.Identity()
        self.eval()
        with torch.no_grad():
            self.embedding_width = int(self.encode_text(tokenizer(["a"])).embedding.shape[-1])

    def encode_image(self, pixels: Tensor) -> TowerOutput:
        """As `Towers.encode_image`, without tokens; `pixels` come out of open_clip's transform."""
        embedding: Tensor = self.model.encode_image(pixels)
        return TowerOutput(embedding[:, None], embedding)

    def encode_text(self, tokens: Tensor) -> TowerOutput:
        """As `Towers.encode_text`, without tokens."""
        embedding: Tensor = self.model.encode_text(tokens)
        return TowerOutput(embedding[:, None], embedding)


def hugging_face_model(name: str) -> DualModel:
    """A CLIP, SigLIP or SigLIP 2 model of transformers, from a folder or the Hub, with its own image processor.

    Raises:
        Mt2stError: as `hugging_face_towers`; the image processor is missing.
    """
    import transformers

    from mt2st.encoders.hugging_face import hugging_face_towers, load_pretrained

    towers = hugging_face_towers(name)
    if (
        towers.image.vision.config.model_type == "siglip2_vision_model"
    ):  # of variable resolution: the towers cut the patches
        return _uint8_model(towers, towers.image_size)
    processor = load_pretrained(transformers.AutoImageProcessor, name, None)
    towers.add_module("normalize", nn.Identity())  # the processor does it

    def transform(picture: Any) -> Tensor:
        pixels: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    return DualModel(towers.eval(), transform)


def run_model(run_dir: Path) -> DualModel:
    """The towers of a finished run of a vision-language case.

    Raises:
        Mt2stError: as `trained_run`.
    """
    run = trained_run(run_dir)
    return _uint8_model(run.encoder("cpu").towers, run.knobs.image_size)


def _with_transform(towers: OpenClipTowers | HybridTowers) -> DualModel:
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
