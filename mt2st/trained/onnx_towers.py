"""The towers of a trained model in ONNX: pictures and texts to embeddings, without torch and without this package.

    image.onnx   pixels uint8 [batch, 3, S, S], RGB          → embeddings float32 [batch, E], unit length
    text.onnx    tokens int64 [batch, context_length]        → embeddings float32 [batch, E], unit length
    onnx.json    how pictures become pixels, and which token pads

What was written is run by onnxruntime before it is handed over, on other inputs and other batches than those that it
was traced with, and compared with torch.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mt2st.errors import Mt2stError
from mt2st.files import write_text
from mt2st.trained.description import Description
from mt2st.trained.vision_language import TOKENIZER_FILE, VisionLanguageModel

SETTINGS_FILE = "onnx.json"
TOLERANCE = 1e-5
"""largest difference of an embedding's component from torch's"""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_BATCHES = (1, 2, 5)  # the exporter sees the second one
_OTHERWISE = "--format safetensors writes a folder that mt2st.load takes"
_TEXTS = ("a red circle", "what colour is it?", "no", "two", "is there a very small blue square on the left side of it")


class _Images(nn.Module):
    def __init__(self, towers: Any) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.normalize(self.towers.encode_image(pixels).embedding.float(), dim=-1)


class _Texts(nn.Module):
    def __init__(self, towers: Any) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.normalize(self.towers.encode_text(tokens).embedding.float(), dim=-1)


def write_onnx(description: Description, model: VisionLanguageModel, tokenizer: Path | None, folder: Path) -> None:
    """Write both towers of `model`, their tokenizer and `onnx.json`, and compare them with torch by onnxruntime.

    Args:
        description: of the run.
        model: the run's model on the CPU, LoRA merged.
        tokenizer: folder of a checkpoint's tokenizer; None = the run has its own, tokenizer.json.
        folder: where to write.

    Raises:
        Mt2stError: the extra onnx is not installed, the exporter cannot take a tower, or the numbers differ.
    """
    _require()
    towers: Any = model.encoder.towers
    random = np.random.default_rng(0)
    size = model.image_size
    pixels = torch.from_numpy(random.integers(0, 256, (max(_BATCHES), 3, size, size), np.uint8))
    tokens = towers.tokenize(list(_TEXTS))
    sides = (("image", "pixels", _Images(towers), pixels), ("text", "tokens", _Texts(towers), tokens))
    for side, name, tower, inputs in sides:
        what = f"the {side} tower of {description.build.get('towers')!r}"
        path = folder / f"{side}.onnx"
        _export(tower.eval(), name, inputs[: _BATCHES[1]], path, what)
        compare(tower, name, inputs, path, what)
    settings = {
        "format": 1,
        "image": {
            "file": "image.onnx",
            "size": size,
            "fit": str(description.build["fit"]),
            "channels": "RGB, 0 to 255",
        },
        "text": {"file": "text.onnx", "context_length": int(tokens.shape[1]), "pad_id": int(towers.pad_id)},
        "embedding_width": model.embedding_width,
    }
    write_text(folder / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n")
    if TOKENIZER_FILE in description.files:
        shutil.copyfile(description.path(TOKENIZER_FILE), folder / TOKENIZER_FILE)
    elif tokenizer is not None:
        for path in sorted(tokenizer.iterdir()):
            if path.is_file() and not path.name.startswith(("config.", "preprocessor_", "open_clip_")):
                shutil.copyfile(path, folder / path.name)


def _require() -> None:
    for name in _PACKAGES:
        if find_spec(name) is None:
            raise Mt2stError(f"--format onnx needs the package {name}: pip install '.[onnx]' in the checkout")


def _export(tower: nn.Module, name: str, inputs: Tensor, path: Path, what: str) -> None:
    try:
        with _silent():
            torch.onnx.export(
                tower,
                (inputs,),
                str(path),
                dynamo=True,
                external_data=False,
                input_names=[name],
                output_names=["embeddings"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
    except Exception as error:  # noqa: BLE001 - the exporter raises what the model's code and its own parts raise
        reason = " ".join(_reason(error).split())[:200]
        raise Mt2stError(f"torch {torch.__version__} cannot write {what} in ONNX ({reason}); {_OTHERWISE}") from None


def _reason(error: BaseException) -> str:
    """The innermost cause: the exporter's own message is a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def compare(tower: nn.Module, name: str, inputs: Tensor, path: Path, what: str) -> None:
    """Run the file of a tower on several batches of `inputs`, and raise `Mt2stError` where it is not as torch's.

    Args:
        tower: what was written.
        name: of its input.
        inputs: at least as many rows as the largest batch.
        path: the file.
        what: what errors call the tower.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for count in _BATCHES:
            with torch.inference_mode():
                wanted = tower(inputs[:count]).numpy()
            (found,) = session.run(None, {name: inputs[:count].numpy()})
            difference = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
            if not difference <= TOLERANCE:
                raise Mt2stError(
                    f"{what} in ONNX differs from torch by {difference:.2g}, more than {TOLERANCE:g}; {_OTHERWISE}"
                )
    except Mt2stError:
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's classes of errors share no base but Exception
        reason = " ".join(str(error).split())[:200]
        raise Mt2stError(f"onnxruntime cannot run {what} as torch wrote it ({reason}); {_OTHERWISE}") from None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the exporter says while it works: it is no user's business as long as the numbers agree."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
