"""The encoder of a finished run, from its folder alone: no training data are opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from benchmarks.cases.shared.data_knobs import DataKnobs
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs
from benchmarks.cases.shared.fine_tuning import tune_towers
from benchmarks.cases.shared.vision_language import build_encoder
from benchmarks.records.folder import RunFolder
from benchmarks.records.weights import final_weights
from benchmarks.suite.runs import begun_run
from mt2st.encoders.factory import text_side
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError


@dataclass(frozen=True)
class TrainedRun:
    """A finished run of a vision-language case.

    Attributes:
        path: its folder.
        knobs: of its case, with `encoder` and `image_size`.
        facts: run id, benchmark, strategy, seed, hash of the configuration.
        step: its number of optimiser steps.
        weights: the file of its final weights.
        weights_hash: SHA-256 (hex) of that file.
    """

    path: Path
    knobs: Any
    facts: dict[str, Any]
    step: int
    weights: Path
    weights_hash: str

    def encoder(self, device: str) -> VisionLanguageEncoder:
        """The trained encoder on `device`, in evaluation mode.

        Raises:
            Mt2stError: the tokenizer is missing, or the weights are those of another model.
        """
        tokenizer = None
        if text_side(self.knobs.encoder.towers) == "small":
            tokenizer = TextTokenizer.load(self.path / "tokenizer.json")
        encoder = build_encoder(self.knobs.encoder, self.knobs.image_size, tokenizer, self.facts["seed"])
        tune_towers(self.knobs.encoder, encoder)  # LoRA's matrices are part of the model
        try:
            missing, _ = load_model(_Trained(encoder), str(self.weights), strict=False)  # the objectives stay behind
        except (RuntimeError, SafetensorError) as error:
            missing = [str(error).splitlines()[0]]
        if missing:
            raise Mt2stError(
                f"{self.weights} does not fit the encoder of {self.path} ({missing[0]}); use the version of the code "
                "that trained the run"
            )
        return encoder.to(device).eval()


class _Trained(nn.Module):
    """The encoder where a checkpoint has it."""

    def __init__(self, encoder: VisionLanguageEncoder) -> None:
        super().__init__()
        self.encoder = encoder


def trained_run(run_dir: Path) -> TrainedRun:
    """The run in `run_dir`.

    Raises:
        Mt2stError: no run, a case without image and text embeddings, a run that is not finished, or one whose weights
            are missing or damaged.
    """
    folder = RunFolder.existing(run_dir)
    card, knobs, run = begun_run(run_dir)
    if not isinstance(knobs, DataKnobs) or not isinstance(getattr(knobs, "encoder", None), EncoderKnobs):
        raise Mt2stError(
            f"{run_dir} is a run of {card.name}, which has no embeddings of images and texts; give a run of vqa or "
            "retrieval"
        )
    if folder.status() != "finished":
        raise Mt2stError(f"{run_dir} is not finished; python -m benchmarks resume {run_dir} goes on with it")
    weights, digest = final_weights(run_dir)
    facts = {name: folder.identity[name] for name in ("run_id", "benchmark", "strategy", "seed", "config_hash")}
    return TrainedRun(run_dir, knobs, facts, run.steps, weights, digest)
