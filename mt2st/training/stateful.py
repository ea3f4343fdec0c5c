"""Parts of a run that remember something between steps, and how a checkpoint keeps what they remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

_TENSOR = "tensor of"


class Stateful(Protocol):
    """A part of a run, other than model and optimiser, that remembers something between steps.

    Checkpoints keep its state, so that a resumed run has the bits of an uninterrupted one. The state is a few numbers:
    JSON values and small tensors, in mappings and lists.
    """

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def states_of(parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """The states of all parts by name, as JSON values; every bit of a float survives that."""
    return {name: _plain(part.state_dict()) for name, part in parts.items()}


def load_states(parts: Mapping[str, Stateful], states: Mapping[str, Any]) -> None:
    """Give each part the state that `states_of` took of it."""
    for name, part in parts.items():
        part.load_state_dict(_restored(states[name]))


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return {_TENSOR: str(value.dtype).removeprefix("torch."), "values": value.detach().cpu().tolist()}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        if _TENSOR in value:
            return torch.tensor(value["values"], dtype=getattr(torch, value[_TENSOR]))
        return {name: _restored(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return value
