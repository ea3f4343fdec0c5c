"""Towers by open_clip: a small configuration that is trained from scratch, or any model name with weights.

The small configuration is the default. open_clip is imported where a function needs it, because that takes seconds and
many who import this module, for a name or a class, build no towers.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mt2st.encoders import TowerOutput
from mt2st.encoders.attention import pack_attention
from mt2st.encoders.fine_tuning import Part, Source
from mt2st.encoders.last_block import TextOutput, serves
from mt2st.encoders.normalisation import CLIP_MEAN, CLIP_STD, PixelNormalizer
from mt2st.encoders.reduced_images import patches_of, run_reduced
from mt2st.encoders.stem import ConvolutionalStem
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.errors import Mt2stError, unknown_name

WEIGHTS_ONLY = "weights-only"
"""what follows a tag or path, after a colon, to allow weights that are not safetensors"""
_HUB_NAME = "open_clip_model.safetensors"  # what open_clip itself calls weights that it puts on the Hub
LOAD_ERRORS = (
    RuntimeError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    StopIteration,
    EOFError,
    SafetensorError,
)


@dataclass(frozen=True)
class SmallConfig:
    """Size of towers trained from scratch on a CPU. Defaults: about 0.2 M parameters for 32×32 images."""

    image_size: int = 32
    """height and width in pixels; a multiple of 8"""
    width: int = 64
    """width of image and text tokens"""
    layers: int = 2
    """transformer layers of the image tower"""
    text_layers: int = 1
    """transformer layers of the text tower"""
    heads: int = 2
    """attention heads of both towers"""
    embedding_width: int = 64
    """width E of the common embedding space"""
    context_length: int = 16
    """text tokens a text is padded or cut to"""
    mlp_ratio: float = 2.0
    """hidden width of the towers' MLPs as a multiple of their width"""
    stem_width: int = 16
    """channels of the first of three convolutions, which double; the third has `width`"""
    vocabulary_size: int = 0
    """tokens of the text vocabulary, set from the tokenizer"""


class OpenClipTowers(nn.Module):
    """An open_clip model as `Towers`.

    Texts may be shorter than `context_length`: what the tower would see of the padding is put back, so that the
    embedding is the one its weights were trained to give. CLIP's text towers are causal; see
    `mt2st.encoders.fusion.Fusion` for how they serve masked language modelling. The small configuration's text tower is
    bidirectional and masks its padding.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenize: Any,
        *,
        context_length: int,
        pad_id: int,
        mask_id: int | None,
        frame_ids: tuple[int, ...] = (),
        loaded: bool = False,
    ) -> None:
        super().__init__()
        self._loaded = loaded
        pack_attention(model)
        self.model: Any = model
        self._tokenize = tokenize
        visual: Any = self.model.visual
        text: Any = self.model.text
        for tower in (visual, text):
            if hasattr(tower, "output_tokens"):
                tower.output_tokens = True
        size = visual.image_size
        self.image_size = int(size[0] if isinstance(size, tuple | list) else size)
        self.context_length = context_length
        self.pad_id = pad_id
        self.frame_ids = frame_ids
        if mask_id is None:
            mask_id = _append_token(text)
        # Without a causal or a padding mask the tower sees its padding; and the last position, where some read off the
        # embedding (SigLIP) or put a class token (CoCa), is that of the full length.
        sees_padding = text.attn_mask is None and not text.use_pad_mask
        self._full_length = sees_padding or text.pool_type == "last" or text.cls_emb is not None
        text.transformer.register_forward_pre_hook(_cut_mask, with_kwargs=True)
        self.mask_id = mask_id
        self.vocabulary_size = int(text.token_embedding.num_embeddings)
        self.normalize = PixelNormalizer(
            self.image_size,
            getattr(visual, "image_mean", None) or CLIP_MEAN,
            getattr(visual, "image_std", None) or CLIP_STD,
        )
        with torch.no_grad():
            training = self.training
            self.eval()
            image = self.encode_image(torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.uint8))
            tokens = self.encode_text(torch.ones(1, context_length, dtype=torch.int64))
            self.train(training)
        self.image_width, self.text_width = image.tokens.shape[-1], tokens.tokens.shape[-1]
        self.embedding_width = image.embedding.shape[-1]

    @property
    def logit_scale(self) -> Tensor:
        scale: Tensor = self.model.logit_scale
        return scale

    @property
    def logit_bias(self) -> Tensor | None:
        """Learned bias of the sigmoid loss, where the model has one."""
        bias: Tensor | None = getattr(self.model, "logit_bias", None)
        return bias

    def image_half(self) -> OpenClipTowers:
        """These towers without their text tower and temperature, for a pair."""
        self.model = nn.ModuleDict({"visual": self.model.visual})
        return self

    def text_half(self) -> OpenClipTowers:
        """These towers without their image tower and temperature, for a pair."""
        self.model = nn.ModuleDict({"text": self.model.text})
        return self

    @property
    def pretrained(self) -> bool:
        """Whether the weights were loaded."""
        return self._loaded

    def token_table(self) -> Tensor | None:
        """The token embeddings [V, D] of loaded weights, to which a language-model head is tied; else None."""
        table: Tensor | None = self.model.text.token_embedding.weight if self._loaded else None
        return table

    def parts(self) -> dict[str, Part]:
        """What can be tuned or frozen: "image", "text" and "temperature"."""
        temperature = nn.ParameterList([each for each in (self.logit_scale, self.logit_bias) if each is not None])
        return {
            "image": Part(self.model.visual, self._loaded, Source(self, "encode_image", None)),
            "text": Part(self.model.text, self._loaded, Source(self, "read_text", self.pad_id)),
            "temperature": Part(temperature, self._loaded),
        }

    def encode_image(self, pixels: Tensor) -> TowerOutput:
        images = self.normalize(pixels)
        visual = self.model.visual
        if getattr(visual, "output_tokens", False):
            embedding, tokens = visual(images)
        else:
            output = visual.forward_intermediates(images, indices=1, normalize_intermediates=True)
            embedding, grid = output["image_features"], output["image_intermediates"][-1]
            tokens = grid.flatten(2).transpose(1, 2) if grid.ndim == 4 else grid
        return TowerOutput(tokens, embedding)

    def image_patches(self, side: int) -> int:
        """P of images of `side` pixels; see `mt2st.encoders.reduced_images`."""
        return patches_of(self.model.visual, self.image_size, side)

    def encode_reduced_image(self, pixels: Tensor, kept: Tensor | None = None) -> TowerOutput:
        """Encode [B, 3, h, w] uint8 of any size that the patches divide, `kept` [B, K] of their patches alone."""
        normalize: Any = self.normalize  # one half of a pair has none of its own
        images = normalize.scaled(pixels) if isinstance(normalize, PixelNormalizer) else pixels
        embedding, tokens = run_reduced(self.model.visual, images, self.image_size, kept)
        return TowerOutput(tokens, embedding)

    def encode_text(self, tokens: Tensor) -> TowerOutput:
        return TowerOutput(*self.read_text(tokens))

    def read_text(self, tokens: Tensor) -> TowerOutput | TextOutput:
        """As `encode_text`, but what nobody reads of the output is not computed, where the tower's form allows that."""
        given = tokens.shape[1]
        if self._full_length:
            tokens = nn.functional.pad(tokens, (0, self.context_length - given), value=self.pad_id)
        if serves(self.model.text):
            return TextOutput(self.model.text, tokens, given)
        embedding, encoded = self.model.text(tokens)
        return TowerOutput(encoded[:, :given], embedding)

    def tokenize(self, texts: list[str]) -> Tensor:
        ids: Tensor = self._tokenize(texts)
        return ids


def small_towers(config: SmallConfig, tokenizer: TextTokenizer, *, sigmoid: bool = False) -> OpenClipTowers:
    """Towers of `config` with fresh weights: open_clip's towers behind a convolutional stem.

    Args:
        config: the size.
        tokenizer: gives vocabulary and special tokens.
        sigmoid: start temperature and bias as the sigmoid loss needs them (arXiv 2303.15343).

    Raises:
        Mt2stError: the image size is no multiple of 8, or the width is no multiple of the heads.
    """
    if config.image_size % 8 or config.image_size < 8:
        raise Mt2stError(
            f"image_size = {config.image_size} px must be a multiple of 8, such as 32, for the three strides of 2"
        )
    if config.width % config.heads:
        raise Mt2stError(f"width = {config.width} is not divisible by heads = {config.heads}; choose a multiple")
    import open_clip

    model = open_clip.CustomTextCLIP(
        embed_dim=config.embedding_width,
        vision_cfg={
            "layers": config.layers,
            "width": config.width,
            "head_width": config.width // config.heads,
            "mlp_ratio": config.mlp_ratio,
            "patch_size": 8,
            "image_size": config.image_size,
            "pool_type": "avg",
        },
        text_cfg={
            "context_length": config.context_length,
            "vocab_size": tokenizer.vocabulary_size,
            "width": config.width,
            "heads": config.heads,
            "layers": config.text_layers,
            "mlp_ratio": config.mlp_ratio,
            "no_causal_mask": True,
            "pad_id": tokenizer.pad_id,
            "eos_id": tokenizer.end_id,
            "pool_type": "eos",
        },
        init_logit_scale=2.3026 if sigmoid else 2.6593,  # ln 10 and ln(1 / 0.07), the papers' starts
        init_logit_bias=-10.0 if sigmoid else None,
    )
    model.visual.conv1 = ConvolutionalStem(config.width, config.stem_width)
    model.text.use_pad_mask = True  # open_clip has the mask but no configuration field for it
    return OpenClipTowers(
        model,
        lambda texts: tokenizer.encode(texts, config.context_length),
        context_length=config.context_length,
        pad_id=tokenizer.pad_id,
        mask_id=tokenizer.mask_id,
        frame_ids=(tokenizer.start_id, tokenizer.end_id),
    )


def named_towers(name: str, pretrained: str | None = None, *, weights_only: bool = False) -> OpenClipTowers:
    """Any open_clip model by name, with the tokenizer that belongs to it.

    Args:
        name: such as "ViT-B-32"; `open_clip.list_models()` has them all.
        pretrained: a tag of `open_clip.list_pretrained()`, or the path of local weights; None = fresh weights.
        weights_only: False = safetensors alone, of a tag too: what it has in another format is not even downloaded.
            True = other formats as well, pickles through `torch.load(weights_only=True)`, which makes tensors and plain
            containers only.

    Raises:
        Mt2stError: unknown name or tag; a weights file that is missing, torn, of another model, or not safetensors
            without `weights_only`; weights that cannot be downloaded; a model whose text tower is one of transformers.
    """
    import open_clip

    known = open_clip.list_models()
    if name not in known:
        raise unknown_name("open_clip model", name, known)
    is_path = pretrained is not None and bool(Path(pretrained).suffix or "/" in pretrained)
    if pretrained and is_path and not Path(pretrained).is_file():
        raise Mt2stError(f"weights {pretrained!r} are not a file; give a safetensors file or a tag of {name}")
    if pretrained and not is_path and pretrained not in open_clip.list_pretrained_tags_by_model(name):
        raise unknown_name(f"pretrained tag of {name}", pretrained, open_clip.list_pretrained_tags_by_model(name))
    config = open_clip.get_model_config(name) or {}
    partner = config.get("text_cfg", {}).get("hf_model_name")
    if partner:
        raise Mt2stError(
            f"open_clip's {name} has a text tower of transformers, {partner}; use hf:VISION+{partner} with a vision "
            "model"
        )
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained and not is_path else {}
    if tag and tag.get("quick_gelu", False) != config.get("quick_gelu", False):
        warnings.warn(
            f"{pretrained!r} and {name} differ in their activation (QuickGELU); see open_clip.list_pretrained()",
            stacklevel=2,
        )
    try:
        # open_clip is given a file in place of a tag, and looks for none itself; the tag's normalisation of pixels goes
        # with it.
        file = _weights_file(name, pretrained, tag, weights_only) if pretrained else None
        pixels = {key: tag[key] for key in ("mean", "std") if key in tag}
        model = open_clip.create_model(name, pretrained=file, force_custom_text=True, force_preprocess_cfg=pixels)
        tokenizer = open_clip.get_tokenizer(name)
    except Mt2stError:
        raise
    except UnpicklingError:
        raise Mt2stError(
            f"weights {pretrained!r} for {name} hold more than tensors or are torn, so they are not loaded; convert "
            "them to safetensors"
        ) from None
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        weights = f"weights {pretrained!r}" if pretrained else "fresh weights"
        raise Mt2stError(
            f"cannot load {weights} for {name} ({reason}); offline, give a local safetensors file of this very model"
        ) from None
    return towers_of(model, tokenizer, loaded=file is not None)


def towers_of(model: nn.Module, tokenizer: Any, *, loaded: bool) -> OpenClipTowers:
    """An open_clip model with its own tokenizer as towers; `loaded` = its weights are a checkpoint's."""
    inner = getattr(tokenizer, "tokenizer", None)  # where the tokenizer is one of transformers; CLIP's own pads with 0
    if inner is not None:
        pad, frame = (
            int(inner.pad_token_id or 0),
            {inner.bos_token_id, inner.eos_token_id, inner.cls_token_id, inner.sep_token_id},
        )
    else:
        pad, frame = 0, {tokenizer.sot_token_id, tokenizer.eot_token_id}
    ids = tuple(sorted(frame - {None, pad}))
    return OpenClipTowers(
        model,
        tokenizer,
        context_length=int(tokenizer.context_length),
        pad_id=pad,
        mask_id=None,
        frame_ids=ids,
        loaded=loaded,
    )


def _weights_file(name: str, pretrained: str, tag: dict[str, Any], weights_only: bool) -> str:
    """The file of a tag, downloaded unless it is there already; or the path itself, where `tag` is empty.

    `tag` is open_clip's entry. Left to itself open_clip takes whatever format a tag has, a pickle if there is nothing
    else.
    """
    import open_clip

    allow = f"convert them, or allow them with {pretrained}:{WEIGHTS_ONLY} (torch.load with weights_only=True)"
    if not tag:
        if Path(pretrained).suffix != ".safetensors" and not weights_only:
            raise Mt2stError(
                f"weights {pretrained!r} are not safetensors; other formats can execute code when loaded, so {allow}"
            )
        return pretrained
    if weights_only:
        return str(open_clip.download_pretrained(tag))
    repository, wanted = os.path.split(tag.get("hf_hub", ""))
    if not repository:
        raise Mt2stError(
            f"open_clip's {pretrained!r} for {name} has no safetensors; other formats can execute code when loaded, so "
            f"{allow}"
        )
    safe = str(Path(wanted).with_suffix(".safetensors")) if wanted else _HUB_NAME
    try:
        return str(open_clip.pretrained.download_pretrained_from_hf(repository, filename=safe))
    except OSError as error:
        reason = " ".join(str(error).split())[:300]
        raise Mt2stError(
            f"cannot load weights {pretrained!r} for {name} as safetensors ({reason}); offline, give a local "
            f"safetensors file of this very model; if the Hub has them in another format only, {allow}"
        ) from None


def _cut_mask(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Cut a causal mask [T, T] to the texts at hand; open_clip gives the transformer that of the full context."""
    mask = kwargs.get("attn_mask")
    if mask is not None and mask.ndim == 2:
        length = args[0].shape[1]
        kwargs["attn_mask"] = mask[:length, :length]
    return args, kwargs


def _append_token(text: Any) -> int:
    """Give the tower one more token, the mask, started at the mean of the others (CLIP's vocabulary has none).

    Returns its id.
    """
    old = text.token_embedding
    new = nn.Embedding(old.num_embeddings + 1, old.embedding_dim, device=old.weight.device, dtype=old.weight.dtype)
    with torch.no_grad():
        new.weight[:-1] = old.weight
        new.weight[-1] = old.weight.mean(0)
    text.token_embedding = new
    text.vocab_size = old.num_embeddings + 1
    return int(old.num_embeddings)
