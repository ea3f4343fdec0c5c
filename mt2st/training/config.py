"""How to train: the knobs, and the pure functions of them (learning rate, parameter groups)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from mt2st.errors import Mt2stError, check_range, unknown_name

PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Every field is part of the run's identity."""

    total_steps: int
    """optimiser steps"""
    seed: int = 0
    """seed of dropout, masks and coins; the data order has its own in the streams"""
    learning_rate: float = 2e-3
    """peak learning rate of AdamW"""
    weight_decay: float = 0.01
    """decoupled weight decay of matrices; vectors and scalars are not decayed"""
    warmup_fraction: float = 0.05
    """share of the steps in which the learning rate rises linearly from 0"""
    clip_norm: float = 1.0
    """limit of the global gradient norm; 0 = no clipping"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """mixed precision; "no" = fp32"""
    accumulation: int = 1
    """micro-batches an optimiser step"""
    compile: bool = False
    """torch.compile the model"""
    evaluate_every_steps: int = 0
    """steps between validations; 0 = only at the end"""
    log_every_steps: int = 20
    """steps between log lines; losses are checked for NaN at the same points"""
    checkpoint_every_steps: int = 0
    """steps between checkpoints; 0 = none by step"""
    checkpoint_every_seconds: float = 0.0
    """seconds between checkpoints; 0 = none by time"""
    keep_checkpoints: int = 2
    """checkpoints kept"""

    def __post_init__(self) -> None:
        for name in ("total_steps", "accumulation", "log_every_steps", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise Mt2stError(f"{name} = {getattr(self, name)!r} must be ≥ 1")
        limits = (
            "learning_rate",
            "weight_decay",
            "clip_norm",
            "evaluate_every_steps",
            "checkpoint_every_steps",
            "checkpoint_every_seconds",
        )
        for name in limits:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise Mt2stError(f"{name} = {getattr(self, name)!r} must be finite and ≥ 0")
        check_range("warmup_fraction", self.warmup_fraction, 0.0, 1.0, "it is a share of the steps, for example 0.05")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up, then one cosine to 0, never restarted at a
    switch.
    """
    warmup = max(1, round(config.warmup_fraction * config.total_steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.total_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices with weight decay, vectors and scalars (norms, biases, temperatures) without."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
