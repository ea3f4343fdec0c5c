"""What a case's fine-tuning knobs do to its encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases.shared.encoder_knobs import FineTuningKnobs
from benchmarks.cases.shared.frozen_towers import FrozenTowers
from mt2st.encoders.fine_tuning import RateGroup, fine_tune
from mt2st.encoders.freezing import Freezes, entries
from mt2st.encoders.frozen_outputs import Inputs
from mt2st.errors import Mt2stError
from mt2st.training.sharding import recompute_activations


@dataclass(frozen=True)
class Tuning:
    """How an encoder is tuned.

    Attributes:
        rates: the parameters that are trained at a learning rate of their own.
        freezes: the parts that are frozen for a part of the training.
        towers: those that are frozen all the time, which are run once.
    """

    rates: Sequence[RateGroup] = ()
    freezes: Freezes = field(default_factory=Freezes)
    towers: FrozenTowers = field(default_factory=FrozenTowers)


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
    towers = FrozenTowers()
    if knobs.cache_frozen != "off":
        whole = {entry.part for entry in entries(knobs.freeze) if entry.whole and not entry.timed}
        kept = {name: parts[name] for name in whole & set(inputs or {}) if parts[name].source is not None}
        towers = FrozenTowers(kept, inputs or {}, folder, tokens, knobs.cache_frozen)
    return Tuning(rates, Freezes.of(parts, knobs.freeze), towers)
