"""What a case's fine-tuning knobs do to its encoder."""

from __future__ import annotations

from typing import Any

from benchmarks.cases.shared.encoder_knobs import FineTuningKnobs
from mt2st.encoders.fine_tuning import RateGroup, fine_tune
from mt2st.errors import Mt2stError
from mt2st.training.sharding import recompute_activations


def tune_towers(knobs: FineTuningKnobs, encoder: Any) -> list[RateGroup]:
    """Freeze, add LoRA and turn on gradient checkpointing in `encoder`, in place.

    Returns:
        The parameters that are trained at a learning rate of their own.

    Raises:
        Mt2stError: as `mt2st.encoders.fine_tuning.fine_tune`, or no tower offers gradient checkpointing.
    """
    if knobs.gradient_checkpointing and not recompute_activations(encoder):
        raise Mt2stError("gradient_checkpointing: no tower of this encoder offers it; leave it out")
    return fine_tune(
        encoder.parts(),
        learning_rate=knobs.learning_rate,
        layer_decay=knobs.layer_decay,
        freeze=knobs.freeze,
        lora_rank=knobs.lora_rank,
    )
