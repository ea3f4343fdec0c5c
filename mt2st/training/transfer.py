"""Start from the weights of another training: what fits by name and shape is taken, the rest stays as it is.

    taken = take_weights(JointModel(encoder, mixture), Path("weights.safetensors"), leave=("mixture.objectives.vqa.",))
    taken.parameters, taken.new      # 401920, ("mixture.objectives.vqa",)

Vocabularies are not matched here: token embeddings of another size stay new. Take the tokenizer over with the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from mt2st.errors import Mt2stError


@dataclass(frozen=True)
class TakenWeights:
    """What a model took from a file of weights.

    Attributes:
        parameters: numbers in the parameters that were taken.
        of_parameters: numbers in all parameters of the model.
        new: what stays as it was, the longest common beginnings of its names; a shape in brackets where the file has
            another one.
        unused: what the file holds and the model has no place for, in the same way.
    """

    parameters: int
    of_parameters: int
    new: tuple[str, ...]
    unused: tuple[str, ...]


def take_weights(model: nn.Module, path: Path, *, leave: Sequence[str] = (), must: str = "") -> TakenWeights:
    """Copy into `model`, in place, every tensor of a safetensors file that fits one of its own by name and shape.

    Tensors that are one memory under two names (tied weights) count as one.

    Args:
        leave: beginnings of names that stay new whatever the file holds.
        must: beginning of names of which at least one matrix has to fit.

    Raises:
        Mt2stError: the file cannot be read, or no matrix that begins with `must` fits.
    """
    own = model.state_dict()
    by_memory: dict[tuple[int, torch.Size], list[str]] = {}
    for name, tensor in own.items():
        by_memory.setdefault((tensor.data_ptr(), tensor.shape), []).append(name)
    taken: set[str] = set()
    other: dict[str, list[int]] = {}
    used: set[str] = set()
    shapes: dict[str, list[int]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            aliases = file.metadata() or {}  # `save_model` keeps one of two names of a tensor and notes the other
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
            for name, tensor in own.items():
                source = name if name in shapes else aliases.get(name, "")
                if source not in shapes or name.startswith(tuple(leave)):
                    continue
                used.add(source)
                if shapes[source] != list(tensor.shape):
                    other[name] = shapes[source]
                    continue
                with torch.no_grad():
                    tensor.copy_(file.get_tensor(source))
                taken |= {name, *by_memory[tensor.data_ptr(), tensor.shape]}
    except (OSError, SafetensorError) as error:
        raise Mt2stError(f"{path} cannot be read as safetensors ({error}); bring the file anew") from None
    if not any(name.startswith(must) and own[name].ndim > 1 for name in taken):
        theirs = next((name for name in shapes if name.startswith(must)), "none")
        ours = next((name for name in own if name.startswith(must)), "none")
        shown = next(
            (f"; {name} is {there} there and {list(own[name].shape)} here" for name, there in other.items()), ""
        )
        raise Mt2stError(
            f"nothing in {path} fits this model by name and shape (theirs: {theirs}, …; ours: {ours}, …{shown}); "
            "give weights of a model with the same towers and sizes"
        )
    new = [name for name in own if name not in taken]
    kept = dict(model.named_parameters())  # each once, also where tied
    numbers = sum(parameter.numel() for name, parameter in kept.items() if name in taken)
    return TakenWeights(
        parameters=numbers,
        of_parameters=sum(parameter.numel() for parameter in kept.values()),
        new=tuple(
            f"{place} {other[place]} there, {list(own[place].shape)} here" if place in other else place
            for place in common_beginnings(new, own, apart=other)
        ),
        unused=common_beginnings([name for name in shapes if name not in used], shapes),
    )


def common_beginnings(names: Sequence[str], among: Iterable[str], apart: Iterable[str] = ()) -> tuple[str, ...]:
    """`names` in short: a module in place of its tensors, where all of them are meant.

    >>> common_beginnings(["head.a", "head.b", "tower.a"], ["head.a", "head.b", "tower.a", "tower.b"])
    ('head', 'tower.a')

    Args:
        among: all names that there are.
        apart: names that stay by themselves.
    """
    meant, apart = set(names), set(apart)
    rest = [*(set(among) - meant), *apart]
    found: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        beginnings = [".".join(parts[:length]) for length in range(1, len(parts))]
        shared = (start for start in beginnings if not any(other.startswith(f"{start}.") for other in rest))
        found.setdefault(next(shared, name), []).append(name)
    return tuple(".".join(_shared([name.split(".") for name in group])) for group in found.values())


def _shared(names: Sequence[list[str]]) -> list[str]:
    """The parts that all names begin with."""
    return [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))]
