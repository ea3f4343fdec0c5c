"""What is needed to build pretrained towers without their weights: configurations, tokenizers, image processors.

    write_architecture("small+hf:bert", Path("towers"))                # towers/text/config.json, tokenizer.json, …
    architecture_halves(Path("towers"))                                # ("small", "hf:towers/text")

A run keeps these files, so that its model is built from its folder alone, where the checkpoint is not. They are JSON
and text; there are no weights and no code among them.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from mt2st.encoders.factory import halves
from mt2st.encoders.open_clip_folder import CONFIG_FILE, LOCAL, write_config
from mt2st.encoders.open_clip_towers import WEIGHTS_ONLY
from mt2st.encoders.preprocessing import image_processor
from mt2st.files import write_text

BOTH, IMAGE, TEXT = "both", "image", "text"
_ELSEWHERE = ("auto_map", "_name_or_path")  # code of the checkpoint's own, which is never run, and where it was


def write_architecture(spec: str, folder: Path, sides: Collection[str] = (IMAGE, TEXT)) -> None:
    """Write the files of each half of the towers `spec` that is not small.

    Args:
        spec: as for `make_towers`, or the checkpoint of a single encoder.
        folder: gets `both`, or `image` and `text`; with one side, that one.
        sides: which halves are used.

    Raises:
        Mt2stError: the checkpoint is no longer where it was loaded from.
    """
    images, texts = halves(spec)
    if images == texts and len(sides) > 1:
        _write(images, folder / BOTH, sides)
        return
    for side, half in ((IMAGE, images), (TEXT, texts)):
        if half != "small" and side in sides:
            _write(half, folder / side, (side,))


def architecture_halves(folder: Path) -> tuple[str, str]:
    """The specifications for `towers_of_halves(…, weights=False)` of what `write_architecture` wrote."""
    if (folder / BOTH).is_dir():
        return _spec(folder / BOTH), _spec(folder / BOTH)
    return _spec(folder / IMAGE), _spec(folder / TEXT)


def _spec(folder: Path) -> str:
    if (folder / CONFIG_FILE).is_file():
        return f"open_clip:{LOCAL}{folder}"
    return f"hf:{folder}" if folder.is_dir() else "small"


def _write(spec: str, folder: Path, sides: Collection[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    family, _, rest = spec.partition(":")
    if family == "open_clip":
        name, _, tag = rest.removesuffix(f":{WEIGHTS_ONLY}").partition(":")
        write_config(folder, name, tag)
        return
    import transformers

    from mt2st.encoders.hugging_face import load_pretrained, load_tokenizer

    config = load_pretrained(transformers.AutoConfig, rest, None).to_dict()
    _write_json(folder / "config.json", config)
    if TEXT in sides:
        load_tokenizer(rest).save_pretrained(folder)
    if IMAGE in sides and (settings := image_processor(rest)):
        _write_json(folder / "preprocessor_config.json", settings)


def _write_json(path: Path, values: dict[str, object]) -> None:
    kept = {name: value for name, value in values.items() if name not in _ELSEWHERE}
    write_text(path, json.dumps(kept, indent=1, sort_keys=True, default=str) + "\n")
