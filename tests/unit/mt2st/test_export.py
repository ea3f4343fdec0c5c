"""Exported folders, loaded by the libraries that they are for: the embeddings are those of the run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file

import mt2st
from mt2st.__main__ import main
from mt2st.encoders.factory import make_towers
from mt2st.trained import export as exporting
from tests.helpers.trained_folder import QUESTIONS, pictures, write_run
from tests.unit.mt2st.test_portable_towers import towers_of


def exported(form: str, run: Path, out: Path) -> Path:
    assert main(["export", str(run), "--format", form, "--out", str(out)]) == 0
    return out


def unit(found: Any) -> np.ndarray:
    tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return torch.nn.functional.normalize(tensor.detach(), dim=-1).numpy()


def lone(run: Path) -> Any:
    return mt2st.load(run, device="cpu")


@pytest.mark.parametrize(("name", "lora_rank"), [("open_clip", 0), ("open_clip", 2), ("open_clip-sigmoid", 0)])
def test_open_clip_loads_it(name: str, lora_rank: int, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", towers=towers_of(name, tmp_path / "checkpoint"), lora_rank=lora_rank)
    shutil.rmtree(tmp_path / "checkpoint")
    ours = lone(run)
    out = exported("open_clip", run, tmp_path / "out")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{out}")
    tokens = open_clip.get_tokenizer(f"local-dir:{out}")(QUESTIONS)
    with torch.inference_mode():
        images = model.eval().encode_image(torch.stack([preprocess(picture) for picture in pictures(3)]))
        texts = model.encode_text(tokens)
    assert np.allclose(unit(images), ours.embed_images(pictures(3)), atol=1e-5)
    assert np.allclose(unit(texts), ours.embed_texts(QUESTIONS), atol=1e-5)
    assert not any("lora" in key for key in load_file(out / "open_clip_model.safetensors"))
    back = make_towers(f"open_clip:local-dir:{out}").eval()  # and back in
    with torch.inference_mode():
        assert np.allclose(unit(back.encode_text(back.tokenize(QUESTIONS)).embedding), unit(texts), atol=1e-5)


@pytest.mark.parametrize(("kind", "lora_rank"), [("clip", 0), ("clip", 2), ("siglip", 0)])
def test_transformers_load_a_dual_model(kind: str, lora_rank: int, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", towers=towers_of(f"hf:{kind}", tmp_path / "checkpoint"), lora_rank=lora_rank)
    shutil.rmtree(tmp_path / "checkpoint")
    ours = lone(run)
    out = exported("hf", run, tmp_path / "out")
    model, report = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    words = transformers.AutoTokenizer.from_pretrained(out)
    padding: Any = "max_length" if kind == "siglip" else True
    tokens = words(QUESTIONS, padding=padding, truncation=True, return_tensors="pt")
    settings = json.loads((out / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
    pixels = (ours.pixels(pictures(3)).float() / 255 - mean) / std
    with torch.inference_mode():
        images = model.eval().get_image_features(pixel_values=pixels)
        texts = model.get_text_features(input_ids=tokens["input_ids"])
    assert np.allclose(unit(images), ours.embed_images(pictures(3)), atol=1e-5)
    assert np.allclose(unit(texts), ours.embed_texts(QUESTIONS), atol=1e-5)
    assert make_towers(f"hf:{out}").image_size == 16  # and back in


def test_transformers_load_both_halves_of_a_pair(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", towers=towers_of("hf:vit+hf:bert", tmp_path / "checkpoint"))
    shutil.rmtree(tmp_path / "checkpoint")
    ours = lone(run)
    out = exported("hf", run, tmp_path / "out")
    vision = transformers.AutoModel.from_pretrained(out / "image").eval()
    text = transformers.AutoModel.from_pretrained(out / "text").eval()
    words = transformers.AutoTokenizer.from_pretrained(out / "text")
    projections = load_file(out / "projections.safetensors")
    settings = json.loads((out / "image" / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
    tokens = words(QUESTIONS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        pixels = (ours.pixels(pictures(3)).float() / 255 - mean) / std
        seen = vision(pixel_values=pixels).last_hidden_state.mean(1)
        real = tokens["attention_mask"][..., None]
        read = text(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        mean_read = (read * real).sum(1) / real.sum(1)
    assert np.allclose(unit(seen @ projections["image_projection.weight"].T), ours.embed_images(pictures(3)), atol=1e-5)
    assert np.allclose(
        unit(mean_read @ projections["text_projection.weight"].T), ours.embed_texts(QUESTIONS), atol=1e-5
    )
    assert "projections.safetensors" in (out / "README.md").read_text()


@pytest.mark.parametrize("towers", ["small", "small+hf:bert"])
def test_our_own_folder_holds_the_same_model_without_auxiliaries(towers: str, tmp_path: Path) -> None:
    spec = towers if towers == "small" else towers_of(towers, tmp_path / "checkpoint")
    run = write_run(tmp_path / "run", towers=spec)
    ours, out = lone(run), exported("safetensors", run, tmp_path / "out")
    found = lone(out)
    assert (found.embed_images(pictures(3)) == ours.embed_images(pictures(3))).all()
    assert found.answer(pictures(1)[0], QUESTIONS[0]) == ours.answer(pictures(1)[0], QUESTIONS[0])
    with safe_open(out / "weights.safetensors", framework="pt") as file:
        assert not any("masked_lm" in name for name in file.keys())  # noqa: SIM118 - no mapping
    assert exported("safetensors", out, tmp_path / "again").is_dir()


@pytest.mark.parametrize(
    ("towers", "form", "reason"),
    [
        ("small", "open_clip", "towers 'small', and open_clip takes .*--format safetensors writes a folder"),
        ("small", "hf", "towers 'small', and transformers takes .*--format safetensors writes a folder"),
        ("small", "onxx", "unknown format 'onxx'.*onnx"),
        ("hf:clip", "open_clip", "open_clip takes the towers of one of its own models"),
        ("small+hf:bert", "hf", "transformers takes towers of its own"),
    ],
)
def test_what_a_form_cannot_hold_is_refused(
    towers: str, form: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = towers if towers == "small" else towers_of(towers, tmp_path / "checkpoint")
    run = write_run(tmp_path / "run", towers=spec)
    capsys.readouterr()  # transformers' own lines while the checkpoint was made
    assert main(["export", str(run), "--format", form, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(reason, error)
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "checkpoint"}


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "out"
    out.mkdir()
    exported("safetensors", run, out)  # an empty one is taken
    kept = (out / "README.md").read_text()
    (out / "README.md").write_text("mine")
    assert main(["export", str(run), "--format", "safetensors", "--out", str(out)]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert (out / "README.md").read_text() == "mine" != kept


def test_an_interrupted_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")

    def interrupted(*given: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "model_card", interrupted)
    assert main(["export", str(run), "--format", "safetensors", "--out", str(tmp_path / "out")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_card_says_what_was_trained_and_how_well(tmp_path: Path) -> None:
    about = {
        "run_id": "switch-s0", "benchmark": "vqa", "strategy": "Switch", "seed": 0, "steps": 40,
        "schedules": {"contrastive": "Switch(at=0.3)"}, "training_flops": 1.5e12, "parameters": 12345,
        "data": {"name": "drawn", "revision": "1", "licence": "CC0-1.0", "content_hash": "abc"},
        "test": {"vqa_accuracy": 0.75}, "intervals": {
            "vqa_accuracy": {"low": 0.7, "high": 0.8, "confidence": 0.95, "over": "clusters", "count": 20}},
    }  # fmt: skip
    run = write_run(tmp_path / "run", about=about)
    card = ModelCard.load(exported("safetensors", run, tmp_path / "out") / "README.md")
    assert card.data.library_name == "mt2st"
    assert card.data.eval_results[0].metric_value == 0.75
    for said in ("Switch(at=0.3)", "CC0-1.0", "1.5e+12", "| 0.75 | 0.7 to 0.8 | 20 clusters |", "## Limits"):
        assert said in card.text
