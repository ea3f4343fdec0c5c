"""Towers in ONNX, run by onnxruntime: the embeddings are those of the run."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mt2st
from mt2st.__main__ import main
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.trained import onnx_towers
from tests.helpers.trained_folder import QUESTIONS, pictures, write_run
from tests.unit.mt2st.test_portable_towers import towers_of

NEEDS_ONNX = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra onnx"
)


def embedded(file: Path, name: str, inputs: torch.Tensor) -> np.ndarray:
    import onnxruntime

    (found,) = onnxruntime.InferenceSession(str(file)).run(None, {name: inputs.numpy()})
    return np.asarray(found)


@NEEDS_ONNX
@pytest.mark.parametrize(("form", "lora_rank"), [("small", 0), ("hf:clip", 2), ("open_clip-sigmoid+hf:bert", 0)])
def test_onnxruntime_gives_the_runs_embeddings(form: str, lora_rank: int, tmp_path: Path) -> None:
    towers = form if form == "small" else towers_of(form, tmp_path / "checkpoint")
    run, out = write_run(tmp_path / "run", towers=towers, lora_rank=lora_rank), tmp_path / "out"
    assert main(["export", str(run), "--format", "onnx", "--out", str(out)]) == 0
    model = mt2st.load(run, device="cpu")
    settings = json.loads((out / "onnx.json").read_text())
    assert settings["image"]["size"] == model.image_size == 16
    pixels, tokens = model.pixels(pictures(4)), model.encoder.towers.tokenize(QUESTIONS)
    assert settings["text"]["context_length"] == tokens.shape[1]
    assert settings["text"]["pad_id"] == model.encoder.towers.pad_id
    for count in (1, 4):
        found = embedded(out / "image.onnx", "pixels", pixels[:count])
        assert np.allclose(found, model.embed_images(pictures(4)[:count]), atol=1e-5)
    assert np.allclose(embedded(out / "text.onnx", "tokens", tokens), model.embed_texts(QUESTIONS), atol=1e-5)
    if form == "small":  # the tokenizer that lies beside it makes those tokens
        words = TextTokenizer.load(out / "tokenizer.json")
        assert (words.encode(QUESTIONS, settings["text"]["context_length"]) == tokens).all()
    else:
        assert {"tokenizer.json", "onnx.json", "README.md"} <= {path.name for path in out.iterdir()}
    assert "onnxruntime" in (out / "README.md").read_text()


@NEEDS_ONNX
def test_towers_that_the_exporter_fixes_to_a_batch_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", towers=towers_of("hf:siglip2", tmp_path / "checkpoint"))
    capsys.readouterr()
    assert main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search("the image tower of 'hf:.*siglip2' as torch wrote it .*--format safetensors", error)
    assert not (tmp_path / "out").exists()


def test_other_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, *given: object, **more: object) -> None:
            pass

        def run(self, names: object, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [inputs["pixels"].astype(np.float32) + 2e-5]

    class Runtime:
        InferenceSession = Session

    monkeypatch.setitem(sys.modules, "onnxruntime", Runtime)
    tower: Any = torch.nn.Identity()
    with pytest.raises(mt2st.Mt2stError, match="the tower in ONNX differs from torch by 2e-05, more than 1e-05"):
        onnx_towers.compare(tower, "pixels", torch.zeros(5, 3), tmp_path / "image.onnx", "the tower")


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_towers, "find_spec", lambda name: None)
    run = write_run(tmp_path / "run")
    assert main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert "--format onnx needs the package onnx: pip install '.[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
