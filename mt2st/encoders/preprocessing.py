"""How a checkpoint wants its pictures: size, crop, interpolation, mean and std, read from its own files.

Pixels are brought to the right size when data are prepared, by Pillow, as open_clip and the Pillow backend of
transformers do. The torchvision backend of transformers rounds differently: single pixels are one or more levels off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mt2st.data.images import INTERPOLATIONS, checked_fit
from mt2st.encoders.installed import resolved
from mt2st.encoders.normalisation import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from mt2st.errors import Mt2stError

HALF = (0.5, 0.5, 0.5)  # mean and std of SigLIP and of ViT's own checkpoints
SQUASH = "squash"
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def own_fit(spec: str) -> str:
    """The `fit` with which data are prepared for the image tower of `make_towers(spec)`.

    "squash" for small towers and for checkpoints that say nothing.

    Raises:
        Mt2stError: the checkpoint wants something that preparing cannot do.
    """
    family, _, rest = resolved(spec.partition("+")[0]).partition(":")
    if family == "hf":
        return processor_fit(image_processor(rest), rest)
    if family != "open_clip":
        return SQUASH
    import open_clip

    from mt2st.encoders.open_clip_folder import read_config

    name, _, tag = rest.removesuffix(":weights-only").partition(":")
    if name == "local-dir":
        written = read_config(Path(tag))
        side = written["model_cfg"]["vision_cfg"].get("image_size", 224)
        return open_clip_fit(
            written.get("preprocess_cfg") or {}, int(side[0] if isinstance(side, list) else side), rest
        )
    config = (open_clip.get_pretrained_cfg(name, tag) if tag else None) or {}
    size = ((open_clip.get_model_config(name) or {}).get("vision_cfg") or {}).get("image_size", 224)
    return open_clip_fit(config, int(size[0] if isinstance(size, list | tuple) else size), rest)


def open_clip_fit(config: Mapping[str, Any], size: int, name: str) -> str:
    """The `fit` of open_clip's transform for evaluation, from its preprocessing configuration."""
    mode, interpolation = config.get("resize_mode") or "shortest", config.get("interpolation") or "bicubic"
    if mode not in ("shortest", "squash") or interpolation not in INTERPOLATIONS:
        raise _cannot(name, f"resize_mode = {mode!r}, interpolation = {interpolation!r}")
    return f"edge:{size}:{interpolation}" if mode == "shortest" else f"squash:{interpolation}"


def image_processor(name: str, revision: str | None = None) -> dict[str, Any]:
    """The image processor's settings of a Hub name or folder, with its class's defaults; empty where there is none."""
    import transformers
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        written: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(name, revision=revision)[0]
    except (OSError, ValueError):
        return {}
    try:
        defaults = transformers.AutoImageProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError):  # a class that this version does not have
        return written
    return {**defaults.to_dict(), **written}


def processor_fit(settings: Mapping[str, Any], name: str) -> str:
    """The `fit` of an image processor's settings.

    Raises:
        Mt2stError: they say something that preparing cannot do.
    """
    size = settings.get("size")
    if "max_num_patches" in settings:  # SigLIP 2 of variable resolution, on a square grid
        return "squash:bilinear"
    if not size or not settings.get("do_resize", True):
        return SQUASH
    interpolation = _RESAMPLE.get(int(settings.get("resample", 3)), "")
    size = {"shortest_edge": size} if isinstance(size, int) and settings.get("do_center_crop") else size
    size = {"height": size, "width": size} if isinstance(size, int) else size
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    side = crop.get("height") if isinstance(crop, Mapping) else crop
    if "height" in size and (side is None or side == size["height"]) and size["height"] == size.get("width"):
        fit = f"squash:{interpolation}"
    elif "shortest_edge" in size and side is not None:
        fit = f"edge-floor:{size['shortest_edge']}:{interpolation}"
    elif "shortest_edge" in size and "crop_pct" in settings:  # ConvNeXt: crops up to 383 pixels, squashes from there
        edge = int(size["shortest_edge"])
        fit = (
            f"edge-floor:{int(edge / settings['crop_pct'])}:{interpolation}"
            if edge < 384
            else f"squash:{interpolation}"
        )
    else:
        raise _cannot(name, f"size = {dict(size)}, crop_size = {crop}")
    if interpolation not in INTERPOLATIONS:
        raise _cannot(name, f"resample = {settings.get('resample')}")
    checked_fit(fit)
    return fit


def mean_and_std(settings: Mapping[str, Any], model_type: str) -> tuple[Sequence[float], Sequence[float]]:
    """From an image processor's settings; without one, what models of this type were trained with."""
    if settings.get("do_normalize", True) and settings.get("image_mean") and settings.get("image_std"):
        return settings["image_mean"], settings["image_std"]
    if settings and not settings.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if model_type.startswith("siglip"):
        return HALF, HALF
    return (CLIP_MEAN, CLIP_STD) if model_type.startswith("clip") else (IMAGENET_MEAN, IMAGENET_STD)


def _cannot(name: str, found: str) -> Mt2stError:
    return Mt2stError(
        f"{name!r} wants its pictures with {found}, which preparing cannot do; bring them to that form yourself and "
        "write another preprocessor_config.json beside the weights"
    )
