"""The folder of a small vision-language model with random weights, as a run leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_model
from torch import nn

from mt2st.encoders.architecture import write_architecture
from mt2st.encoders.open_clip_towers import SmallConfig
from mt2st.encoders.preprocessing import own_fit
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.objectives.vqa import AnswerObjective
from mt2st.trained.asking import tuned
from mt2st.trained.description import TOWERS_FOLDER, write_description
from mt2st.trained.vision_language import build_encoder

ANSWERS = ("yes", "no", "red", "a circle")
QUESTIONS = ["what colour is it?", "is there a circle?", "no"]


def write_run(
    folder: Path,
    answers: tuple[str, ...] = ANSWERS,
    *,
    towers: str = "small",
    lora_rank: int = 0,
    about: dict[str, Any] | None = None,
) -> Path:
    """A VQA model, or without answers a retrieval model; its weights are not those of the checkpoints of `towers`."""
    folder.mkdir()
    tokenizer = TextTokenizer.train([*QUESTIONS, *ANSWERS], 280)
    tokenizer.save(folder / "tokenizer.json")
    small = vars(SmallConfig(image_size=16, width=16, layers=1, embedding_width=8))
    build: dict[str, Any] = {
        "towers": towers,
        "small": small,
        "fusion_width": 16,
        "fusion_layers": 0,
        "fusion_heads": 2,
    }
    fit = "squash" if towers == "small" else own_fit(towers)
    model = nn.Module()
    model.encoder = build_encoder(build, tokenizer)
    if lora_rank:
        build |= {"lora_rank": lora_rank, "freeze": []}
        tuned(model.encoder, build)
    with torch.no_grad():
        for parameter in model.encoder.parameters():  # trained weights are no checkpoint's
            parameter.add_(
                0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    model.mixture = nn.Module()
    heads: dict[str, nn.Module] = {"masked_lm": nn.Linear(3, 3)}
    if answers:
        heads["vqa"] = AnswerObjective(16, len(answers))
        (folder / "answers.txt").write_text("\n".join(answers) + "\n")
    model.mixture.objectives = nn.ModuleDict(heads)
    save_model(model, str(folder / "weights.safetensors"))
    if towers != "small":
        write_architecture(towers, folder / TOWERS_FOLDER)
    kept = [path.relative_to(folder).as_posix() for path in (folder / TOWERS_FOLDER).rglob("*") if path.is_file()]
    write_description(
        folder,
        "vision-language",
        {**build, "image_size": 16, "fit": fit, "head": "vqa"},
        weights="weights.safetensors",
        files=["tokenizer.json", *kept, *(["answers.txt"] if answers else [])],
        about=about or {"run_id": "mtl-s0", "benchmark": "vqa" if answers else "retrieval"},
    )
    return folder


def pictures(count: int) -> list[Image.Image]:
    """Pictures of 30 × 20 random pixels, always the same."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(count)]
