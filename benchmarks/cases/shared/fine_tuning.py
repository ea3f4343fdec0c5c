"""What a case's fine-tuning knobs do to its encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.cases import Tuning
from benchmarks.cases.shared.encoder_knobs import FineTuningKnobs
from benchmarks.cases.shared.frozen_towers import FrozenTowers
from mt2st.encoders.fine_tuning import fine_tune
from mt2st.encoders.freezing import Freezes, entries
from mt2st.encoders.frozen_outputs import Inputs
from mt2st.errors import Mt2stError
from mt2st.training.sharding import recompute_activations


def tune_towers(
    knobs: FineTuningKnobs,
    encoder: Any,
    inputs: Mapping[str, Callable[[], Inputs]] | None = None,
    *,
    folder: Path = Path("data"),
    tokens: bool = True,
) -> Tuning:
    """Freeze, add LoRA and turn on gradient checkpointing in `encoder`, in place.

    Args:
        inputs: what the parts "image" and "text" will be given, all of it: the outputs of a frozen one are kept.
        folder: the data folder.
        tokens: whether token states of the towers are asked for, and not embeddings alone.

    Raises:
        Mt2stError: as `mt2st.encoders.fine_tuning.fine_tune`, or no tower offers gradient checkpointing.
    """
    if knobs.gradient_checkpointing and not recompute_activations(encoder):
        raise Mt2stError("gradient_checkpointing: no tower of this encoder offers it; leave it out")
    parts = encoder.parts()
    rates = fine_tune(
        parts,
        learning_rate=knobs.learning_rate,
        layer_decay=knobs.layer_decay,
        freeze=knobs.freeze,
        lora_rank=knobs.lora_rank,
    )
    kept = {}
    if knobs.cache_frozen != "off":
        whole = {entry.part for entry in entries(knobs.freeze) if entry.whole and not entry.timed}
        kept = {name: parts[name] for name in whole & set(inputs or {}) if parts[name].source is not None}
    towers = FrozenTowers(kept, inputs or {}, folder, tokens, knobs.cache_frozen)
    return Tuning(rates, Freezes.of(parts, knobs.freeze, remember=knobs.cache_frozen != "off"), towers.run_once)
