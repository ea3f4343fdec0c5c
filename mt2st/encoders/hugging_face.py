"""Towers by transformers: CLIP, SigLIP, SigLIP 2, or any vision model with any text model.

Safetensors only, no remote code.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mt2st.encoders import TowerOutput
from mt2st.encoders.fine_tuning import Part
from mt2st.encoders.normalisation import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, PixelNormalizer
from mt2st.errors import Mt2stError, check_range

DUAL_MODELS = ("clip", "siglip", "siglip2")
HALF = (0.5, 0.5, 0.5)  # SigLIP's mean and std
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")


class HuggingFaceTowers(nn.Module):
    """A vision model and a text model of transformers as `Towers`. Build it with `hugging_face_towers`.

    Two kinds. A *dual* model (CLIP, SigLIP, SigLIP 2) brings embeddings, temperature and bias; texts are encoded as its
    own processor would: no padding mask, and padded to the full context where the embedding is read off the last
    position (SigLIP). A *pair* gets an embedding by averaging tokens (real ones only) and a linear projection each.

    CLIP's text model is causal; see `mt2st.encoders.fusion.Fusion` for how it serves masked language modelling.
    """

    def __init__(
        self, vision: Any, text: Any, tokenizer: Any, *, image_size: int, context_length: int, normalize: nn.Module
    ) -> None:
        super().__init__()
        self.vision, self.text, self.normalize = vision, text, normalize
        self._tokenizer = tokenizer
        self.image_size, self.context_length = image_size, context_length
        self.pad_id = int(tokenizer.pad_token_id)
        embedding = text.get_input_embeddings()
        frame = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id} - {
            None
        }
        self.frame_ids = tuple(sorted(token for token in frame if token < embedding.num_embeddings))
        own = tokenizer.mask_token_id
        self.mask_id = int(own) if own is not None and own < embedding.num_embeddings else _append_token(text)
        self.vocabulary_size = int(text.get_input_embeddings().num_embeddings)
        self._interpolate = {"interpolate_pos_encoding": True} if _must_interpolate(vision, image_size) else {}
        self.image_projection: nn.Module = nn.Identity()
        self.text_projection: nn.Module = nn.Identity()
        self.logit_scale: Tensor
        self.logit_bias: Tensor | None
        self._pooled = False

    def _use_dual(self, model: Any) -> None:
        """Take embeddings, projections, temperature and bias from a dual model."""
        self._pooled = True
        if self.pad_id == self._tokenizer.eos_token_id and model.config.model_type == "clip":
            # OpenAI's own padding. With the end token for padding nobody could tell the end of a text from what follows
            # it; in a causal model nothing that follows the end matters.
            self.pad_id = 0
        self.image_projection = getattr(model, "visual_projection", None) or nn.Identity()
        self.text_projection = getattr(model, "text_projection", None) or nn.Identity()
        self.logit_scale = model.logit_scale
        self.logit_bias = getattr(model, "logit_bias", None)
        self._measure()

    def _use_pair(self, embedding_width: int) -> None:
        """Average tokens and project them to `embedding_width`; start at CLIP's temperature."""
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.logit_bias = None
        self._measure()
        self.image_projection = nn.Linear(self.image_width, embedding_width, bias=False)
        self.text_projection = nn.Linear(self.text_width, embedding_width, bias=False)
        self.embedding_width = embedding_width

    def parts(self) -> dict[str, Part]:
        """What can be tuned or frozen: "image" and "text"; a pair's projections are new and in neither."""
        image = nn.ModuleList([self.vision, *([self.image_projection] if self._pooled else [])])
        text = nn.ModuleList([self.text, *([self.text_projection] if self._pooled else [])])
        return {"image": Part(image, True), "text": Part(text, True)}

    @torch.no_grad()
    def _measure(self) -> None:
        """Widths, by running both towers once."""
        training = self.training
        self.eval()
        image = self.encode_image(torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.uint8))
        text = self.encode_text(self.tokenize(["a"]))
        self.train(training)
        self.image_width, self.text_width = image.tokens.shape[-1], text.tokens.shape[-1]
        self.embedding_width = image.embedding.shape[-1]

    def encode_image(self, pixels: Tensor) -> TowerOutput:
        images = self.normalize(pixels)
        if self.vision.config.model_type == "siglip2_vision_model":
            output = self.vision(**_naflex(images, self.vision.config.patch_size))
        else:
            output = self.vision(pixel_values=images, **self._interpolate)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # convolutional models: [B, D, h, w]
            tokens = tokens.flatten(2).transpose(1, 2)
        return TowerOutput(tokens, self.image_projection(output.pooler_output if self._pooled else tokens.mean(1)))

    def encode_text(self, tokens: Tensor) -> TowerOutput:
        given = tokens.shape[1]
        if (
            self._pooled
        ):  # what follows the end is causally invisible in CLIP, and seen as padding by SigLIP's own processor
            if self.text.config.model_type.startswith("siglip"):
                tokens = nn.functional.pad(tokens, (0, self.context_length - given), value=self.pad_id)
            output = self.text(input_ids=tokens)
            return TowerOutput(output.last_hidden_state[:, :given], self.text_projection(output.pooler_output))
        real = torch.ne(tokens, self.pad_id)
        encoded = self.text(input_ids=tokens, attention_mask=real.long()).last_hidden_state
        weights = real[..., None].to(encoded.dtype)
        mean = (encoded * weights).sum(1) / weights.sum(1).clamp_min(1.0)
        return TowerOutput(encoded, self.text_projection(mean))

    def tokenize(self, texts: list[str]) -> Tensor:
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
) -> HuggingFaceTowers:
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

    Raises:
        Mt2stError: no such folder, no access to the Hub, pickled weights, no tokenizer or padding token, a model that
            needs its own code, or one that does not fit.
    """
    import transformers  # heavy, and needed only here

    config = load_pretrained(transformers.AutoConfig, name, revision)
    if text is None:
        model = load_model(name, revision)
        if config.model_type not in DUAL_MODELS:
            raise Mt2stError(
                f"{name!r} is a {config.model_type} model, not a vision and a text model in one; "
                f"pair it with a text model, hf:{name}+TEXT_MODEL, or take a CLIP or SigLIP model"
            )
        vision, language, text, text_revision = model.vision_model, model.text_model, name, revision
    else:
        vision, language, model = load_model(name, revision), load_model(text, text_revision), None
        require_input(vision, "pixel_values", name, "vision")
        require_input(language, "input_ids", text, "text")
    tokenizer = load_tokenizer(text, text_revision)
    if tokenizer.pad_token_id is None:
        raise Mt2stError(
            f"the tokenizer of {text!r} has no padding token; set one and save it again with save_pretrained"
        )
    limit = longest_text(language, tokenizer)
    if context_length is not None:
        check_range(f"context_length of {text!r}", context_length, 1, limit, "that is what the model was made for")
    size = image_size or _image_size(vision.config)
    towers = HuggingFaceTowers(
        vision,
        language,
        tokenizer,
        image_size=size,
        context_length=context_length or (limit if model is not None else min(limit, 77)),
        normalize=PixelNormalizer(size, *_mean_and_std(name, revision, config.model_type)),
    )
    if model is not None:
        towers._use_dual(model)
    else:
        tokenizer.padding_side = "right"  # absolute positions start at the first token
        towers._use_pair(embedding_width)
    return towers


def load_model(name: str, revision: str | None = None) -> Any:
    """A model in float32 from safetensors: a Hub name or a folder. Raises `Mt2stError` where it cannot be loaded."""
    import transformers

    if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
        pickles = [path.name for pattern in _PICKLES for path in sorted(Path(name).glob(pattern))]
        found = f"only {', '.join(pickles)}, which can execute code when loaded" if pickles else "no weights"
        raise Mt2stError(f"{name!r} holds {found}; save the model with save_pretrained(…, safe_serialization=True)")
    # Half-precision checkpoints become float32: mixed precision is the trainer's business.
    return load_pretrained(transformers.AutoModel, name, revision, use_safetensors=True).float()


def load_pretrained(kind: Any, name: str, revision: str | None, **options: Any) -> Any:
    """`kind.from_pretrained(name)`, every failure of it as one line."""
    if not Path(name).is_dir() and (name.startswith(("/", "./", "../", "~")) or name.count("/") > 1):
        raise Mt2stError(
            f"{name!r} is not a folder; give a folder that save_pretrained wrote, or a name on the Hub such as "
            "org/model"
        )
    load: Callable[..., Any] = kind.from_pretrained
    try:
        return load(name, revision=revision, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise Mt2stError(
            f"{kind.__name__} cannot load {name!r} ({reason}); offline, give a folder that save_pretrained wrote with "
            "safetensors weights and tokenizer; models that bring their own code or pickled weights are refused"
        ) from None


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


def _mean_and_std(name: str, revision: str | None, model_type: str) -> tuple[Any, Any]:
    """From the model's preprocessor configuration; without one, what models of this type were trained with."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        found = ImageProcessingMixin.get_image_processor_dict(name, revision=revision)[0]
    except (OSError, ValueError):
        found = {}
    if found.get("do_normalize", True) and found.get("image_mean") and found.get("image_std"):
        return found["image_mean"], found["image_std"]
    if found and not found.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if model_type.startswith("siglip"):
        return HALF, HALF
    return (CLIP_MEAN, CLIP_STD) if model_type.startswith("clip") else (IMAGENET_MEAN, IMAGENET_STD)


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
