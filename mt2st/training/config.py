"""How to train: the knobs, and the pure functions of them (learning rate, parameter groups). No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from mt2st.errors import Mt2stError, check_range, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from mt2st.encoders.fine_tuning import RateGroup

PRECISIONS = ("no", "bf16", "fp16")


def decides_nothing(**arguments: Any) -> Any:
    """A dataclass field that changes no number of a run: how often it saves and logs, or where its data lie."""
    return field(**arguments, metadata={"decides_numbers": False})


def off_at(default: Any) -> Any:
    """A field that decides numbers where it differs from `default`. At `default` it is left out of a run's identity.

    So a run without it is the run that it was before there was such a field.
    """
    return field(default=default, metadata={"left_out_at": default})


def deciding(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass that decide a run's numbers, nested dataclasses included, as plain values.

    A field says itself when it does not; see `decides_nothing` and `off_at`.
    """
    found = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if "left_out_at" in each.metadata and value == each.metadata["left_out_at"]:
            continue
        if each.metadata.get("decides_numbers", True):
            found[each.name] = deciding(value) if is_dataclass(value) else value
    return found


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train, apart from how long, with which seed and at which learning rate."""

    weight_decay: float = 0.01
    """AdamW's decoupled weight decay of matrices; vectors and scalars are not decayed"""
    warmup_fraction: float = 0.05
    """share of the steps in which the learning rate rises linearly from 0"""
    clip_norm: float = 1.0
    """limit of the global gradient norm; 0 = no clipping"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """mixed precision; "no" = fp32"""
    keep_best: bool = False
    """early stopping: the weights of the best validation are tested, not the last ones; FLOPs stay what was spent"""
    accumulation: int = 1
    """micro-batches an optimiser step"""
    compile: bool = False
    """torch.compile the model"""
    parallel_streams: bool = off_at(False)
    """where torch has several CPU threads, the streams of a step run side by side, each with threads of its own; where
    that cannot be (a GPU, several processes, half precision, compiled, balanced, reduced images), one after the
    other"""
    shard: bool = False
    """share AdamW's states out over the processes, and compute activations again; for towers that do not fit"""
    patch_dropout: float = off_at(0.0)
    """share of each image's patches that auxiliary batches leave out, drawn anew each time; 0 = none. A batch that the
    primary task uses too keeps all"""
    low_resolution_until: float = off_at(0.0)
    """share of the training, from its start, in which images are shrunk; 0 = none of it, 1 = all"""
    low_resolution_scale: float = off_at(0.5)
    """side of shrunk images, as a share of their own"""
    small_batch_until: float = off_at(0.0)
    """share of the training, from its start, in which a step takes one part of a batch; 0 = none of it, 1 = all"""
    small_batch_parts: int = off_at(2)
    """equal parts that a batch is cut into meanwhile, a step each"""
    shift_pixels: int = off_at(0)
    """training images are shifted at random by up to so many pixels in each direction, edges repeated; 0 = none"""
    average_decay: float = off_at(0.0)
    """decay of a moving average of the weights, which is validated and tested in place of the last ones, for example
    0.99; 0 = no average"""
    log_every_steps: int = decides_nothing(default=20)
    """steps between log lines; losses are checked for NaN at the same points"""
    checkpoint_every_steps: int = decides_nothing(default=0)
    """optimiser steps between checkpoints; 0 = none by step"""
    checkpoint_every_seconds: float = decides_nothing(default=0.0)
    """seconds between checkpoints; 0 = none by time"""
    keep_checkpoints: int = decides_nothing(default=2)
    """checkpoints kept"""

    def __post_init__(self) -> None:
        for name in ("accumulation", "log_every_steps", "keep_checkpoints"):
            _at_least_one(name, getattr(self, name))
        for name in ("weight_decay", "clip_norm", "checkpoint_every_steps", "checkpoint_every_seconds"):
            _finite(name, getattr(self, name))
        check_range("warmup_fraction", self.warmup_fraction, 0.0, 1.0, "it is a share of the steps, for example 0.05")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        check_range("patch_dropout", self.patch_dropout, 0.0, 0.99, "it is the share that is left out, for example 0.5")
        for name in ("low_resolution_until", "small_batch_until"):
            check_range(name, getattr(self, name), 0.0, 1.0, "it is a share of the training, for example 0.4")
        check_range("low_resolution_scale", self.low_resolution_scale, 0.01, 1.0, "it is a share of the side")
        check_range("small_batch_parts", self.small_batch_parts, 2, 4096, "a batch is cut into so many parts")
        check_range("shift_pixels", self.shift_pixels, 0, 4096, "in pixels; 1 to 4 suit images of 32")
        check_range("average_decay", self.average_decay, 0.0, 0.999999, "1 would never learn; for example 0.99")


@dataclass(frozen=True)
class TrainConfig(TrainSettings):
    """How to train one run. Every field that decides numbers is part of the run's identity (see `deciding`)."""

    total_steps: int = 0
    """optimiser steps; 0 = `total_flops` ends the run"""
    seed: int = 0
    """seed of dropout, masks and coins; the data order has its own in the streams"""
    learning_rate: float = 2e-3
    """peak learning rate of AdamW"""
    evaluate_every_steps: int = 0
    """steps between validations; 0 = only at the end"""
    total_flops: int = 0
    """training FLOPs that a run may spend, in place of total_steps: progress is the share that is spent, so learning
    rate and schedules follow it, and the last step is the last one that still fits; 0 = total_steps ends the run"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total_flops < 0:
            raise Mt2stError(f"total_flops = {self.total_flops!r} must be ≥ 0 training FLOPs")
        if self.total_flops and self.total_steps:
            raise Mt2stError(
                f"total_steps = {self.total_steps} and total_flops = {self.total_flops} cannot both end a run; leave "
                "one of them out"
            )
        if not self.total_flops:
            _at_least_one("total_steps", self.total_steps)
        for name in ("learning_rate", "evaluate_every_steps"):
            _finite(name, getattr(self, name))


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise Mt2stError(f"{name} = {value!r} must be ≥ 1")


def _finite(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise Mt2stError(f"{name} = {value!r} must be finite and ≥ 0")


def learning_rate_at(step: int, config: TrainConfig, peak: float | None = None) -> float:
    """Learning rate of optimiser step `step`, from 0: linear warm-up, then one cosine to 0.

    It never starts again at a switch. `peak` is that of a group of its own; None = the configuration's.
    """
    peak = config.learning_rate if peak is None else peak
    warmup = max(1, round(config.warmup_fraction * config.total_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.total_steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate_of(start: float, end: float, config: TrainConfig, peak: float | None = None) -> float:
    """Learning rate of a step that takes progress from `start` to `end`: `learning_rate_at` where a budget ends a run.

    The warm-up follows the end of the step, so that the first step has one, and the cosine its start.
    """
    peak = config.learning_rate if peak is None else peak
    warmup = config.warmup_fraction
    if start < warmup:
        return peak * min(1.0, end / warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * (start - warmup) / (1 - warmup)))


def decay_groups(module: nn.Module, weight_decay: float, rates: Sequence[RateGroup] = ()) -> list[dict[str, Any]]:
    """Parameter groups: matrices with weight decay, vectors and scalars (norms, biases, temperatures) without.

    Those of `rates` come in groups of their own with their peak learning rate as "peak". What is frozen is in none.
    """
    owner = {parameter: rate for rate in rates for parameter in rate.parameters}
    groups = []
    for rate in (None, *rates):
        own = [part for part in module.parameters() if part.requires_grad and owner.get(part) is rate]
        peak = {} if rate is None else {"peak": rate.learning_rate}
        matrices, vectors = [part for part in own if part.ndim >= 2], [part for part in own if part.ndim < 2]
        groups += [
            {"params": matrices, "weight_decay": weight_decay, **peak},
            {"params": vectors, "weight_decay": 0.0, **peak},
        ]
    return [group for group in groups if group["params"]]


def trained_parameters(
    module: nn.Module, learning_rate: float, rates: Sequence[RateGroup] = ()
) -> list[dict[str, str | int | float]]:
    """What is trained with what: a group's name, its number of parameters and peak learning rate; 0 = frozen."""
    mine = {parameter for rate in rates for parameter in rate.parameters}
    others = [part for part in module.parameters() if part.requires_grad and part not in mine]
    frozen = [part for part in module.parameters() if not part.requires_grad]
    rows = [
        ("others" if rates else "all", others, learning_rate),
        *((rate.name, rate.parameters, rate.learning_rate) for rate in rates),
        ("frozen", frozen, 0.0),
    ]
    return [
        {"group": name, "parameters": sum(part.numel() for part in parts), "learning_rate": peak}
        for name, parts, peak in rows
        if parts
    ]
