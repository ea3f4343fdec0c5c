"""A trained model as a folder for other programs: open_clip's form, that of transformers, ONNX, or our own, made small.

    export(Path("results/…/switch-s0-…"), "open_clip", Path("exported"))

The folder is written beside its place and renamed when it is whole, so an interrupted export leaves no half of one.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mt2st.data.images import checked_fit
from mt2st.encoders.architecture import BOTH, IMAGE, TEXT
from mt2st.encoders.fine_tuning import merge_lora
from mt2st.encoders.open_clip_folder import CONFIG_FILE, WEIGHTS_FILE, read_config
from mt2st.encoders.open_clip_towers import OpenClipTowers
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import PARTIAL_SUFFIX, sync_file, sync_folder, write_text
from mt2st.trained.card import model_card
from mt2st.trained.description import Description, read_description, towers_folder, write_description
from mt2st.trained.onnx_towers import write_onnx
from mt2st.trained.vision_language import VisionLanguageModel, restored

FORMATS = ("open_clip", "hf", "onnx", "safetensors")
PROJECTIONS_FILE = "projections.safetensors"
_OURS = "--format safetensors writes a folder that mt2st.load takes"
_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # Pillow's numbers


def export(run: Path, form: str, out: Path) -> list[str]:
    """Write the model of a finished run in the folder `out`, with a model card; the names of its files.

    Args:
        run: the run's folder, or one that was exported as safetensors.
        form: one of `FORMATS`. "open_clip", "hf" and "onnx" hold the towers, whose embeddings are those of the run;
            "hf" of a pair holds two models, `image` and `text`, and the projections. "safetensors" holds the whole
            model without the heads of auxiliaries.
        out: a folder that does not exist, or an empty one.

    Raises:
        Mt2stError: no finished run, an unknown form or one that these towers cannot take, or `out` is not empty.
    """
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    description = read_description(run)
    with _whole(out) as folder:
        _WRITERS[form](description, folder)
        write_text(folder / "README.md", model_card(description, form))
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when the block ends well, and is gone otherwise."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Mt2stError(f"{out} exists and is not an empty folder; name another one, or delete it")
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    partial.mkdir()
    try:
        yield partial
        for path in partial.rglob("*"):
            sync_file(path)
        partial.rename(out)  # fails where somebody else has filled it meanwhile
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(out.parent)


def _write_own(description: Description, folder: Path) -> None:
    """The run's folder with what `mt2st.load` reads, and no heads of auxiliaries."""
    head = str(description.build.get("head", ""))
    wanted = ("encoder.", f"mixture.objectives.{head}.")
    with safe_open(description.path(description.weights), framework="pt") as file:
        shared = {name: kept for name, kept in (file.metadata() or {}).items() if name.startswith(wanted)}
        names = {name: name for name in file.keys() if name.startswith(wanted)}  # noqa: SIM118 - no mapping
        # A tensor that two share is kept under one name, which may be an auxiliary's.
        names |= {name: kept for name, kept in shared.items() if not kept.startswith(wanted)}
        tensors = {name: file.get_tensor(kept) for name, kept in names.items()}
    save_file(tensors, folder / description.weights)
    others = [name for name in description.files if name != description.weights]
    for name in others:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(description.path(name), folder / name)
    write_description(
        folder,
        description.kind,
        description.build,
        weights=description.weights,
        files=others,
        about=description.about,
    )


def _write_open_clip(description: Description, folder: Path) -> None:
    model, source = _towers(description, "open_clip")
    towers: Any = model.encoder.towers
    if source is None or not isinstance(towers, OpenClipTowers):
        raise _refused(description, "open_clip takes the towers of one of its own models, open_clip:NAME")
    config = read_config(source)
    state = _without_mask(towers.model, towers.model.text.token_embedding.weight, towers.vocabulary_size - 1)
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    _copy(source, folder, lambda name: name != CONFIG_FILE)
    kind, _, interpolation = checked_fit(str(description.build["fit"]))
    mean, std = _statistics(towers)
    pixels = {"mean": mean, "std": std, "interpolation": interpolation}
    pixels["resize_mode"] = "squash" if kind == "squash" else "shortest"
    written = {"model_cfg": {**config["model_cfg"], "custom_text": True}, "preprocess_cfg": pixels}
    write_text(folder / CONFIG_FILE, json.dumps(written, indent=1) + "\n")


def _write_hugging_face(description: Description, folder: Path) -> None:
    model, source = _towers(description, "hf")
    towers: Any = model.encoder.towers
    halves: Any = (getattr(towers, "image", None), getattr(towers, "text", None))
    if source is None or not all(_hugging_face(half) for half in halves):
        raise _refused(description, "transformers takes towers of its own, hf:NAME or a pair hf:IMAGES+hf:TEXTS")
    image, text = halves
    if towers.dual:
        _save_dual(towers, source, folder)
        _image_settings(description, towers, source, folder)
        return
    if image.projection is not None or text.projection is not None:
        raise _refused(description, "a half of a CLIP or SigLIP makes no model of transformers alone")
    _save_one(image.vision, None, source / IMAGE, folder / IMAGE)
    _image_settings(description, towers, source / IMAGE, folder / IMAGE)
    _save_one(text.text, text.text.get_input_embeddings().weight, source / TEXT, folder / TEXT)
    projections = {"image": towers.image_projection.weight, "text": towers.text_projection.weight}
    tensors = {f"{side}_projection.weight": weight.detach().contiguous() for side, weight in projections.items()}
    save_file({**tensors, "logit_scale": towers.logit_scale.detach()}, folder / PROJECTIONS_FILE)


def _write_onnx(description: Description, folder: Path) -> None:
    model, source = _towers(description, "onnx")
    if source is not None and (source / TEXT).is_dir():
        source = source / TEXT
    write_onnx(description, model, source, folder)


_WRITERS: dict[str, Callable[[Description, Path], None]] = {
    "open_clip": _write_open_clip,
    "hf": _write_hugging_face,
    "onnx": _write_onnx,
    "safetensors": _write_own,
}


def _towers(description: Description, form: str) -> tuple[VisionLanguageModel, Path | None]:
    """The model with LoRA merged, and where the files of its one model or of its halves are."""
    if description.kind != "vision-language":
        raise _refused(description, f"{form} takes models of images and texts")
    model = restored(description)
    towers: Any = model.encoder.towers
    merge_lora(towers)
    folder = towers_folder(description)
    both = folder / BOTH if folder is not None else None
    return model, both if both is not None and both.is_dir() else folder


def _refused(description: Description, why: str) -> Mt2stError:
    towers = description.build.get("towers")
    what = f"towers {towers!r}" if towers else f"a model of kind {description.kind!r}"
    return Mt2stError(f"{description.folder} holds {what}, and {why}; {_OURS}")


def _hugging_face(half: object) -> bool:
    return type(half).__name__ in ("HuggingFaceImages", "HuggingFaceTexts")


def _without_mask(module: nn.Module, table: Tensor | None, rows: int) -> dict[str, Tensor]:
    """The module's tensors; of the token embeddings `table` the first `rows`: the mask token is this project's own."""
    names = {name for name, parameter in module.named_parameters() if parameter is table}
    return {
        name: (tensor[:rows] if name in names else tensor).detach().clone().contiguous()
        for name, tensor in module.state_dict().items()
    }


def _blank(source: Path) -> Any:
    """A model of the configuration in `source`."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    return transformers.AutoModel.from_config(config, trust_remote_code=False).float()


def _fill(target: Any, trained: nn.Module, table: Tensor | None) -> None:
    rows = target.get_input_embeddings().weight.shape[0] if table is not None else 0
    target.load_state_dict(_without_mask(trained, table, rows))


def _save_one(trained: Any, table: Tensor | None, source: Path, folder: Path) -> None:
    model = _blank(source)
    _fill(model, trained, table)
    model.save_pretrained(folder)
    _copy(source, folder, lambda name: name != "config.json")


@torch.no_grad()
def _save_dual(towers: Any, source: Path, folder: Path) -> None:
    model = _blank(source)
    _fill(model.vision_model, towers.image.vision, None)
    _fill(model.text_model, towers.text.text, towers.text.text.get_input_embeddings().weight)
    for name, trained in (("visual_projection", towers.image.projection), ("text_projection", towers.text.projection)):
        if hasattr(model, name):
            getattr(model, name).load_state_dict(trained.state_dict())
    model.logit_scale.copy_(towers.logit_scale)
    if towers.logit_bias is not None:
        model.logit_bias.copy_(towers.logit_bias)
    model.save_pretrained(folder)
    _copy(source, folder, lambda name: name != "config.json")


def _image_settings(description: Description, towers: Any, source: Path, folder: Path) -> None:
    """The image processor's settings, where the checkpoint came without them."""
    path = folder / "preprocessor_config.json"
    if path.exists():
        return
    kind, edge, interpolation = checked_fit(str(description.build["fit"]))
    side = int(description.build["image_size"])
    mean, std = _statistics(towers)
    settings: dict[str, Any] = {"image_processor_type": "CLIPImageProcessor", "image_mean": mean, "image_std": std}
    settings |= {"resample": _RESAMPLE[interpolation], "size": {"height": side, "width": side}, "do_center_crop": False}
    if kind != "squash":
        settings |= {"size": {"shortest_edge": edge}, "do_center_crop": True, "crop_size": side}
    write_text(path, json.dumps(settings, indent=1) + "\n")


def _statistics(towers: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the three channels, in units of full brightness."""
    normalize = towers.normalize
    mean, scale = normalize.mean.double().flatten(), normalize.scale.double().flatten()
    return [round(each, 7) for each in (mean / 255).tolist()], [round(each, 7) for each in (1 / scale / 255).tolist()]


def _copy(source: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and wanted(path.name):
            shutil.copyfile(path, folder / path.name)
