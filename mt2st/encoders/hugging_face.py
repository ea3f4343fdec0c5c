"""Towers by transformers: CLIP, SigLIP, SigLIP 2, or any vision model with any text model.

Safetensors only, no remote code.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mt2st.encoders import TowerOutput
from mt2st.encoders.normalisation import PixelNormalizer
from mt2st.encoders.pair import PairTowers
from mt2st.encoders.preprocessing import image_processor, mean_and_std
from mt2st.errors import Mt2stError, check_range

DUAL_MODELS = ("clip", "siglip", "siglip2")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")


class HuggingFaceImages(nn.Module):
    """A vision model of transformers as the image half of towers.

    Args:
        vision: the model.
        image_size: height and width of the images it gets, in pixels; another than its own interpolates positions.
        normalize: from uint8 pixels to what the weights expect.
        projection: a dual model's own, on its pooled output; None = the embedding is the mean of the tokens.
    """

    pretrained = True

    def __init__(
        self, vision: Any, *, image_size: int, normalize: nn.Module, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.vision, self.normalize, self.projection = vision, normalize, projection
        self.image_size = image_size
        self._interpolate = {"interpolate_pos_encoding": True} if _must_interpolate(vision, image_size) else {}

    def encode_image(self, pixels: Tensor) -> TowerOutput:
        """As `Towers.encode_image`."""
        images = self.normalize(pixels)
        if self.vision.config.model_type == "siglip2_vision_model":
            output = self.vision(**_naflex(images, self.vision.config.patch_size))
        else:
            output = self.vision(pixel_values=images, **self._interpolate)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # convolutional models: [B, D, h, w]
            tokens = tokens.flatten(2).transpose(1, 2)
        return TowerOutput(tokens, tokens.mean(1) if self.projection is None else self.projection(output.pooler_output))


class HuggingFaceTexts(nn.Module):
    """A text model of transformers as the text half of towers.

    A dual model's texts are encoded as its own processor would: no padding mask, and padded to the full context where
    the embedding is read off the last position (SigLIP). Other models mask their padding.

    CLIP's text model is causal; see `mt2st.encoders.fusion.Fusion` for how it serves masked language modelling.

    Args:
        text: the model.
        tokenizer: its tokenizer.
        context_length: T, tokens to which texts are padded and cut.
        projection: a dual model's own, on its pooled output; None = the embedding is the mean of the real tokens.
    """

    pretrained = True

    def __init__(self, text: Any, tokenizer: Any, *, context_length: int, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.text, self.projection, self.context_length = text, projection, context_length
        self._tokenizer = tokenizer
        self.pad_id = int(tokenizer.pad_token_id)
        if projection is None:
            tokenizer.padding_side = "right"  # absolute positions start at the first token
        elif self.pad_id == tokenizer.eos_token_id and text.config.model_type.startswith("clip"):
            # OpenAI's own padding. With the end token for padding nobody could tell the end of a text from what follows
            # it; in a causal model nothing that follows the end matters.
            self.pad_id = 0
        table = text.get_input_embeddings()
        frame = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
        self.frame_ids = tuple(sorted(token for token in frame - {None} if token < table.num_embeddings))
        own = tokenizer.mask_token_id
        self.mask_id = int(own) if own is not None and own < table.num_embeddings else _append_token(text)
        self.vocabulary_size = int(text.get_input_embeddings().num_embeddings)

    def token_table(self) -> Tensor:
        """The token embeddings [V, D]."""
        table: Tensor = self.text.get_input_embeddings().weight
        return table

    def encode_text(self, tokens: Tensor) -> TowerOutput:
        """As `Towers.encode_text`."""
        given = tokens.shape[1]
        if self.projection is not None:
            # What follows the end is causally invisible in CLIP, and seen as padding by SigLIP's own processor.
            if self.text.config.model_type.startswith("siglip"):
                tokens = nn.functional.pad(tokens, (0, self.context_length - given), value=self.pad_id)
            output = self.text(input_ids=tokens)
            return TowerOutput(output.last_hidden_state[:, :given], self.projection(output.pooler_output))
        real = torch.ne(tokens, self.pad_id)
        encoded = self.text(input_ids=tokens, attention_mask=real.long()).last_hidden_state
        weights = real[..., None].to(encoded.dtype)
        return TowerOutput(encoded, (encoded * weights).sum(1) / weights.sum(1).clamp_min(1.0))

    def tokenize(self, texts: list[str]) -> Tensor:
        """As `Towers.tokenize`."""
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.int64)
        encoded = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
            return_attention_mask=True,
        )
        ids: Tensor = encoded["input_ids"]
        return ids.masked_fill(encoded["attention_mask"] == 0, self.pad_id)


def hugging_face_towers(
    name: str,
    *,
    text: str | None = None,
    revision: str | None = None,
    text_revision: str | None = None,
    embedding_width: int = 256,
    context_length: int | None = None,
    image_size: int | None = None,
    weights: bool = True,
) -> PairTowers:
    """Towers from a model of the Hugging Face Hub or from a local folder.

        hugging_face_towers("openai/clip-vit-base-patch32")
        hugging_face_towers("facebook/dinov2-small", text="google-bert/bert-base-uncased", image_size=224)

    Never runs code that comes with a model, and loads safetensors only: pickled weights can execute code.

    Args:
        name: a dual model (CLIP, SigLIP, SigLIP 2), or with `text` a vision model; a Hub name or a folder that
            `save_pretrained` wrote, with the tokenizer of the text side in it.
        text: a text model, paired with the vision model `name`.
        revision: commit, tag or branch of `name` on the Hub; pin a commit to be reproducible.
        text_revision: the same for `text`.
        embedding_width: E of a pair; a dual model has its own.
        context_length: T; None = the model's own, at most 77 for a pair.
        image_size: pixels; None = the model's own. Another size interpolates the position embeddings.
        weights: False = fresh weights; `name` and `text` are folders that need hold no others.

    Raises:
        Mt2stError: no such folder, no access to the Hub, pickled weights, no tokenizer or padding token, a model that
            needs its own code, or one that does not fit.
    """
    import transformers  # heavy, and needed only here

    if text is not None:
        images = hugging_face_images(name, revision, image_size, weights)
        texts = hugging_face_texts(text, text_revision, context_length, weights)
        return PairTowers(images, texts, embedding_width=embedding_width)
    config = load_pretrained(transformers.AutoConfig, name, revision)
    if config.model_type not in DUAL_MODELS:
        raise Mt2stError(
            f"{name!r} is a {config.model_type} model, not a vision and a text model in one; pair it with another, "
            f"hf:{name}+TEXT_MODEL or small+hf:{name}, or take a CLIP or SigLIP model"
        )
    model = load_model(name, revision, weights)
    return PairTowers(
        _images_of(model, name, revision, image_size),
        _texts_of(model, name, revision, context_length),
        embedding_width=None,
        logit_scale=model.logit_scale,
        logit_bias=getattr(model, "logit_bias", None),
    )


def hugging_face_images(
    name: str, revision: str | None = None, image_size: int | None = None, weights: bool = True
) -> HuggingFaceImages:
    """The image half of towers: a vision model, or that of a dual model. Arguments as for `hugging_face_towers`."""
    model = load_model(name, revision, weights)
    if model.config.model_type not in DUAL_MODELS:
        require_input(model, "pixel_values", name, "vision")
    return _images_of(model, name, revision, image_size)


def hugging_face_texts(
    name: str, revision: str | None = None, context_length: int | None = None, weights: bool = True
) -> HuggingFaceTexts:
    """The text half of towers: a text model, or that of a dual model. Arguments as for `hugging_face_towers`."""
    model = load_model(name, revision, weights)
    if model.config.model_type not in DUAL_MODELS:
        require_input(model, "input_ids", name, "text")
    return _texts_of(model, name, revision, context_length)


def _images_of(model: Any, name: str, revision: str | None, image_size: int | None) -> HuggingFaceImages:
    dual = model.config.model_type in DUAL_MODELS
    vision = model.vision_model if dual else model
    size = image_size or _image_size(vision.config)
    check_patch(vision.config, size, name)
    return HuggingFaceImages(
        vision,
        image_size=size,
        normalize=PixelNormalizer(size, *mean_and_std(image_processor(name, revision), model.config.model_type)),
        projection=(getattr(model, "visual_projection", None) or nn.Identity()) if dual else None,
    )


def _texts_of(model: Any, name: str, revision: str | None, context_length: int | None) -> HuggingFaceTexts:
    dual = model.config.model_type in DUAL_MODELS
    language = model.text_model if dual else model
    tokenizer = load_tokenizer(name, revision)
    if tokenizer.pad_token_id is None:
        raise Mt2stError(
            f"the tokenizer of {name!r} has no padding token; set one and save it again with save_pretrained"
        )
    check_vocabulary(tokenizer, language, name)
    limit = longest_text(language, tokenizer)
    if context_length is not None:
        check_range(f"context_length of {name!r}", context_length, 1, limit, "that is what the model was made for")
    return HuggingFaceTexts(
        language,
        tokenizer,
        context_length=context_length or (limit if dual else min(limit, 77)),
        projection=(getattr(model, "text_projection", None) or nn.Identity()) if dual else None,
    )


def load_model(name: str, revision: str | None = None, weights: bool = True) -> Any:
    """A model in float32 from safetensors: a Hub name or a folder. Raises `Mt2stError` where it cannot be loaded.

    `weights` False: its config alone is read, and the weights are fresh.
    """
    import transformers

    if not weights:
        config = load_pretrained(transformers.AutoConfig, name, revision)
        try:
            return transformers.AutoModel.from_config(config, trust_remote_code=False).float()
        except (ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise Mt2stError(f"no model can be built from the config.json of {name!r} ({reason})") from None
    if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
        pickles = [path.name for pattern in _PICKLES for path in sorted(Path(name).glob(pattern))]
        found = f"only {', '.join(pickles)}, which can execute code when loaded" if pickles else "no weights"
        raise Mt2stError(f"{name!r} holds {found}; save the model with save_pretrained(…, safe_serialization=True)")
    model, found = load_pretrained(
        transformers.AutoModel, name, revision, use_safetensors=True, output_loading_info=True
    )
    # Without its weights a parameter would start at random. A pooler may be missing: few checkpoints need theirs.
    if missing := sorted(key for key in found["missing_keys"] if "pooler" not in key):
        raise Mt2stError(
            f"{name!r} has no weights for {len(missing)} parameters of the {model.config.model_type} that its "
            f"config.json describes, such as {missing[0]}; bring config.json and weights of one and the same model"
        )
    # Half-precision checkpoints become float32: mixed precision is the trainer's business.
    return model.float()


def load_pretrained(kind: Any, name: str, revision: str | None, **options: Any) -> Any:
    """`kind.from_pretrained(name)`, every failure of it as one line."""
    if not Path(name).is_dir() and (name.startswith(("/", "./", "../", "~")) or name.count("/") > 1):
        raise Mt2stError(
            f"{name!r} is not a folder; give a folder that save_pretrained wrote, or a name on the Hub such as "
            "org/model"
        )
    load: Callable[..., Any] = kind.from_pretrained
    try:
        with _quiet():
            return load(name, revision=revision, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        from huggingface_hub.constants import HF_HUB_CACHE

        reason = " ".join(str(error).split())[:300]
        looked = (
            ""
            if Path(name).is_dir()
            else f"; looked in {HF_HUB_CACHE}; with a network: hf download {name} --local-dir FOLDER"
        )
        raise Mt2stError(
            f"{kind.__name__} cannot load {name!r} ({reason}){looked}; offline, give a folder that save_pretrained "
            "wrote with safetensors weights and tokenizer; models that bring their own code or pickled weights are "
            "refused"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar that transformers draws for every load: each run of a suite loads, in a process of its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The tokenizer of a Hub name or a folder.

    Raises:
        Mt2stError: it cannot be loaded, or there is none: transformers then makes one of special tokens alone, to which
            all texts are the same.
    """
    import transformers

    tokenizer = load_pretrained(transformers.AutoTokenizer, name, revision)
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
        raise Mt2stError(
            f"{name!r} holds no tokenizer; save the model's own into the same folder with tokenizer.save_pretrained"
        )
    return tokenizer


def longest_text(model: nn.Module, tokenizer: Any) -> int:
    """The tokens that a text may have at most, special ones included: what both model and tokenizer were made for."""
    config: Any = model.config
    positions = int(getattr(config, "max_position_embeddings", 0) or 512)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            positions -= module.padding_idx + 1  # in RoBERTa and its kin positions start after the padding id
    return min(positions, int(tokenizer.model_max_length))


def require_input(model: Any, takes: str, name: str, role: str) -> None:
    """Raise `Mt2stError` unless `model` is an encoder of `takes` ("pixel_values", "input_ids")."""
    if model.main_input_name != takes or getattr(model.config, "is_encoder_decoder", False):
        raise Mt2stError(
            f"{name!r} is a {model.config.model_type} model, which is no {role} encoder; give one that maps {takes} to "
            "tokens"
        )


def check_vocabulary(tokenizer: Any, model: Any, name: str) -> None:
    """Raise `Mt2stError` if the tokenizer of `name` gives ids that its model has no embedding for."""
    rows = int(model.get_input_embeddings().num_embeddings)
    # transformers adds special tokens that no text gets; padding is one that texts do get.
    unused = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder} - {tokenizer.pad_token_id}
    largest = max(each for each in tokenizer.get_vocab().values() if each not in unused)
    if largest >= rows:
        raise Mt2stError(
            f"the tokenizer of {name!r} has ids up to {largest}, but the model only {rows} token embeddings; put the "
            "tokenizer that the model was trained with into the folder"
        )


def check_patch(config: Any, image_size: int, name: str) -> None:
    """Raise `Mt2stError` if images are smaller than a patch of `name`."""
    patch = getattr(config, "patch_size", None)
    side = max(patch) if isinstance(patch, list | tuple) else int(patch or 0)
    if image_size < side:
        raise Mt2stError(
            f"images of {image_size} px are smaller than the {side} px patches of {name!r}; prepare the data with "
            f"--image-size {_image_size(config)}, the model's own"
        )


def _append_token(text: Any) -> int:
    """Give the text model one more token, the mask, started at the mean of the others; returns its id."""
    old = text.get_input_embeddings()
    new = nn.Embedding(old.num_embeddings + 1, old.embedding_dim, padding_idx=old.padding_idx)
    with torch.no_grad():
        new.weight[:-1] = old.weight
        new.weight[-1] = old.weight.mean(0)
    text.set_input_embeddings(new)
    text.config.vocab_size = new.num_embeddings
    return int(old.num_embeddings)


def _image_size(config: Any) -> int:
    size = getattr(config, "image_size", None)
    if size is None and hasattr(config, "num_patches"):  # SigLIP 2 of variable resolution
        size = math.isqrt(config.num_patches) * config.patch_size
    if size is None:
        size = 224  # convolutional models state none and take any
    return int(size[0] if isinstance(size, list | tuple) else size)


def _must_interpolate(vision: Any, image_size: int) -> bool:
    """Whether the vision model must be told to stretch its position embeddings (DINOv2 does so unasked)."""
    return (
        image_size != _image_size(vision.config)
        and "interpolate_pos_encoding" in inspect.signature(vision.forward).parameters
    )


def _naflex(images: Tensor, patch: int) -> dict[str, Tensor]:
    """SigLIP 2's input: patches [B, P, patch² · 3], channels last within a patch, all real, on a square grid."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    grid = images.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": grid.reshape(batch, rows * columns, -1),
        "pixel_attention_mask": images.new_ones(batch, rows * columns, dtype=torch.int64),
        "spatial_shapes": torch.tensor([[rows, columns]] * batch, device=images.device),
    }
