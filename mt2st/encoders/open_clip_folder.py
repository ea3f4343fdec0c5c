"""A folder in open_clip's own form: open_clip_config.json, safetensors, and tokenizer files where it needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mt2st.encoders.open_clip_towers import LOAD_ERRORS, OpenClipTowers, towers_of
from mt2st.errors import Mt2stError
from mt2st.files import write_text

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
LOCAL = "local-dir:"
_PRETRAINED = "mt2st_pretrained"  # of a folder without weights: whether they were a checkpoint's
_TOKENIZER_OPTIONS = {"clean", "strip_sep_token", "language"}  # others reach transformers, remote code among them


def folder_towers(folder: Path, *, weights: bool = True) -> OpenClipTowers:
    """The towers in `folder`, with the tokenizer that belongs to them. Neither runs code from there nor asks a network.

    Args:
        weights: False = fresh ones; the folder need hold no others.

    Raises:
        Mt2stError: no folder of open_clip, no safetensors in it, or a model that takes more than the folder.
    """
    import open_clip  # see `mt2st.encoders.open_clip_towers`

    config = read_config(folder)
    if weights and not any(folder.glob("*.safetensors")):
        raise Mt2stError(f"{folder} holds no safetensors; other formats can execute code when loaded, so convert them")
    try:
        # force_custom_text: one form of towers, whose weights open_clip converts.
        model = open_clip.create_model(
            f"{LOCAL}{folder}", load_weights=weights, force_custom_text=True, pretrained_image=False
        )
        tokenizer = open_clip.get_tokenizer(f"{LOCAL}{folder}")
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise Mt2stError(f"open_clip cannot load {folder} ({reason}); bring the whole folder anew") from None
    return towers_of(model, tokenizer, loaded=weights or bool(config.get(_PRETRAINED, True)))


def read_config(folder: Path) -> dict[str, Any]:
    """open_clip_config.json, once it is known to ask for nothing but this folder.

    Raises:
        Mt2stError: it is missing or no JSON of that form, or it names a model or options from elsewhere.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        vision, text = config["model_cfg"]["vision_cfg"], config["model_cfg"]["text_cfg"]
        options = set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_OPTIONS
        elsewhere = text.get("hf_model_name") or (":" in str(vision.get("timm_model_name") or "") and vision)
    except OSError:
        raise Mt2stError(
            f"{folder} holds no {CONFIG_FILE}; give a folder that open_clip or mt2st export wrote"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Mt2stError(f"{path} describes no model of open_clip ({error!r}); bring the folder anew") from None
    if elsewhere or options:
        what = f"tokenizer_kwargs {', '.join(sorted(options))}" if options else "a model from elsewhere"
        raise Mt2stError(f"{path} asks for {what}, which is refused: nothing but this folder is read")
    found: dict[str, Any] = config
    return found


def write_config(folder: Path, name: str, tag: str) -> None:
    """What is needed to build open_clip's `name` without weights: its configuration, and tokenizer files.

    Args:
        name: as in `open_clip.list_models()`, or "local-dir" with a folder as `tag`.
        tag: of pretrained weights, or their file; "" = none.
    """
    import open_clip

    if f"{name}:" == LOCAL:
        config, tokenizer = read_config(Path(tag)), open_clip.get_tokenizer(f"{LOCAL}{tag}")
    else:
        known = (open_clip.get_pretrained_cfg(name, tag) if tag else None) or {}
        pixels = {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in known}
        config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": pixels}
        tokenizer = open_clip.get_tokenizer(name)
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:
        inner.save_pretrained(folder)
        config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "."  # this folder, whatever it says
    write_text(folder / CONFIG_FILE, json.dumps({**config, _PRETRAINED: bool(tag)}, indent=1) + "\n")
