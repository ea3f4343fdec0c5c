"""Fine-tuning: which parameters of a pretrained encoder are trained, and at which learning rate.

    groups = fine_tune(encoder.parts(), learning_rate=1e-4, layer_decay=0.9, freeze=("image", "text:4"))
    Trainer(encoder, mixture, streams, config, rates=groups)

A *part* is a tower. The layers of a part are numbered from its input: 0 = embeddings (patches, tokens, positions),
1 … L = transformer layers or stages, L + 1 = what comes after them (last norm, pooling, projection).
"""

from __future__ import annotations

import importlib.util
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from mt2st.encoders.freezing import entries
from mt2st.errors import Mt2stError, check_range, unknown_name

PRETRAINED_RATE = 1e-4
"""peak learning rate of pretrained parameters; all-MiniLM-L6-v2 falls to the majority class at 2e-3, not at this"""
LORA_RATE = 1e-3
"""peak learning rate of LoRA's matrices, which start at no effect and want about ten times as much"""
_INPUT = re.compile(r"emb|conv1|stem|cls_token|mask_token|ln_pre|pre_layrnorm|norm_pre|relative")


class Source(NamedTuple):
    """The method of `owner` whose output depends on one part and its input alone: input → `TowerOutput`.

    `pad_id`: of token ids [B, T]; None = the input is uint8 pixels [B, 3, S, S].
    """

    owner: nn.Module
    method: str
    pad_id: int | None


class Part(NamedTuple):
    """A tower, or another part of an encoder, that can be tuned or frozen.

    `source` says what a tower makes of its input; see `mt2st.encoders.frozen_outputs`.
    """

    module: nn.Module
    pretrained: bool
    source: Source | None = None


class RateGroup(NamedTuple):
    """Parameters that are trained at a peak learning rate of their own; the schedule over the steps is everybody's."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    learning_rate: float


def fine_tune(
    parts: Mapping[str, Part],
    *,
    learning_rate: float | None = None,
    layer_decay: float = 1.0,
    freeze: Sequence[str] = (),
    lora_rank: int = 0,
) -> list[RateGroup]:
    """Freeze, add LoRA, and share out learning rates, in place.

    Args:
        parts: name → part, an encoder's `parts()`.
        learning_rate: peak learning rate of pretrained parts; None = `PRETRAINED_RATE`, with LoRA `LORA_RATE`. Parts
            with fresh weights are in no group: they train at the run's own rate.
        layer_decay: factor on the learning rate from one layer to the one below, in (0, 1]; 1 = all layers alike.
        freeze: parts to freeze whole ("text"), or up to a layer ("text:0" = its embeddings, "text:4" = layers 0 … 4).
            A whole frozen part stays in evaluation mode, so that its outputs never change. What is frozen for a time
            ("text@until=0.3") is checked here and left to `mt2st.encoders.freezing.Freezes`.
        lora_rank: rank of LoRA (arXiv 2106.09685) in pretrained parts that are not frozen whole, whose own weights are
            then fixed; 0 = none. The update is scaled by alpha / rank = 2.

    Returns:
        The groups of the pretrained parameters that are trained.

    Raises:
        Mt2stError: an unknown part or layer, a value out of range, a rate or LoRA where nothing is pretrained, or LoRA
            without peft.
    """
    check_range("layer_decay", layer_decay, 1e-6, 1.0, "it is a factor from layer to layer; 1 = off")
    if lora_rank < 0:
        raise Mt2stError(f"lora_rank = {lora_rank} must be ≥ 0; 0 = no LoRA")
    pretrained = {name: part.module for name, part in parts.items() if part.pretrained}
    asked = {"learning_rate": learning_rate is not None, "layer_decay": layer_decay < 1, "lora_rank": lora_rank > 0}
    if not pretrained and any(asked.values()):
        names = ", ".join(name for name, given in asked.items() if given)
        raise Mt2stError(
            f"{names} of an encoder with nothing pretrained; leave it out (the strategies' learning rate holds), or "
            "load a checkpoint with hf:NAME_OR_FOLDER"
        )
    limits = _frozen_layers(freeze, parts)
    timed = {entry.part for entry in entries(freeze) if entry.timed}
    if lora_rank:
        for name, module in pretrained.items():
            if (limits.get(name, 0) is not None or name in timed) and (targets := _linear_layers(module)):
                _add_lora(module, lora_rank, targets)
    for name, limit in limits.items():
        if name not in timed:
            _freeze(parts[name].module, limit)
    rate = learning_rate if learning_rate is not None else LORA_RATE if lora_rank else PRETRAINED_RATE
    return [group for name, module in pretrained.items() for group in _groups(name, module, rate, layer_decay)]


def layer_numbers(module: nn.Module) -> dict[str, int]:
    """Parameter's name → its layer's number, 0 … L + 1 (see above)."""
    stack, layers = _stack(module)
    numbers = {}
    for name, _ in module.named_parameters():
        inside = re.match(rf"{re.escape(stack)}\.(\d+)\.", name) if layers else None
        if inside:
            numbers[name] = int(inside[1]) + 1
        else:
            numbers[name] = 0 if _INPUT.search(name) else layers + 1
    return numbers


def _stack(module: nn.Module) -> tuple[str, int]:
    """Name and length of the list of layers: the one with the most parameters, of equal ones the longest."""
    found = [
        (sum(parameter.numel() for parameter in part.parameters()), len(part), name)
        for name, part in module.named_modules()
        if name and isinstance(part, nn.ModuleList | nn.Sequential) and len(part)
    ]
    _, layers, name = max(found, default=(0, 0, ""))
    return name, layers


def _frozen_layers(freeze: Sequence[str], parts: Mapping[str, Part]) -> dict[str, int | None]:
    """Part → the highest layer that is frozen, None = the whole part."""
    limits: dict[str, int | None] = {}
    for entry in entries(freeze):
        name, layer = entry.part, entry.layer
        if name not in parts:
            raise unknown_name("part to freeze", name, parts)
        _, layers = _stack(parts[name].module)
        if layer and (not layer.isdecimal() or int(layer) > layers):
            raise Mt2stError(
                f"freeze = {entry.text!r}: {name} has layers 0 to {layers}; write {name}:{layers} or {name}"
            )
        limits[name] = int(layer) if layer else None
    return limits


def _freeze(module: nn.Module, limit: int | None) -> None:
    if limit is None:
        module.requires_grad_(False)
        module.eval()
        module.train = types.MethodType(lambda self, mode=True: self, module)  # type: ignore[method-assign]
        return
    numbers = layer_numbers(module)
    for name, parameter in module.named_parameters():
        if numbers[name] <= limit:
            parameter.requires_grad_(False)


def _groups(name: str, module: nn.Module, rate: float, layer_decay: float) -> list[RateGroup]:
    numbers = layer_numbers(module)
    top = max(numbers.values(), default=0)
    by_layer: dict[int, list[nn.Parameter]] = {}
    for parameter_name, parameter in module.named_parameters():
        if parameter.requires_grad:
            by_layer.setdefault(numbers[parameter_name] if layer_decay < 1 else top, []).append(parameter)
    return [
        RateGroup(
            f"{name}, layer {layer}" if layer_decay < 1 else name,
            tuple(by_layer[layer]),
            rate * layer_decay ** (top - layer),
        )
        for layer in sorted(by_layer)
    ]


def _linear_layers(module: nn.Module) -> list[str]:
    """The matrices of the layers that LoRA goes beside, by name; attention of torch's own counts as one."""
    stack, _ = _stack(module)
    attention = [name for name, part in module.named_modules() if isinstance(part, nn.MultiheadAttention)]
    linear = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and not any(name.startswith(f"{inside}.") for inside in attention)
    ]
    return [name for name in (*attention, *linear) if stack and name.startswith(f"{stack}.")]


def _add_lora(module: nn.Module, rank: int, targets: list[str]) -> None:
    if importlib.util.find_spec("peft") is None:
        raise Mt2stError("lora_rank needs the package peft; install it with pip install 'mt2st[lora]'")
    import peft

    config: Any = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, lora_dropout=0.0)
    peft.inject_adapter_in_model(config, module)


def merge_lora(module: nn.Module) -> None:
    """Add LoRA's updates to the matrices they stand beside and take them away, in place; nothing without LoRA."""
    if importlib.util.find_spec("peft") is None:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {name: part for name, part in module.named_modules() if isinstance(part, BaseTunerLayer)}
    for name, layer in layers.items():
        if any(name.startswith(f"{outer}.") for outer in layers):
            continue  # attention of torch's own takes its inner layer with it
        whole = getattr(layer, "unload_and_optionally_merge_module", None)
        if whole is not None:
            merged = whole(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            merged = layer.get_base_layer()
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, merged)
