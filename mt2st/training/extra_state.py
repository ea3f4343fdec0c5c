"""State beside model and optimiser: name → what a `state_dict` gives, of plain values and tensors.

A checkpoint keeps plain values as JSON and tensors as safetensors. So a state is taken apart: each tensor goes under a
key, and a mark with this key takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from mt2st.errors import Mt2stError

_MARK = "tensor of the checkpoint"


class HasState(Protocol):
    """What has a state that a resumed run needs."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...


def taken_apart(value: Any, place: str = "state") -> tuple[Any, dict[str, Tensor]]:
    """`value` with a mark in place of each tensor, and the tensors by the marks' keys.

    Raises:
        Mt2stError: something in it is neither a plain value nor a tensor, or a key is no text.
    """
    tensors: dict[str, Tensor] = {}

    def apart(part: Any, at: str) -> Any:
        if isinstance(part, Tensor):
            tensors[at] = part.detach().cpu().contiguous().clone()
            return {_MARK: at}
        if isinstance(part, Mapping):
            if wrong := [key for key in part if not isinstance(key, str)]:
                raise Mt2stError(f"{at} has the key {wrong[0]!r}; keys of a checkpointed state must be text")
            return {key: apart(item, f"{at}.{key}") for key, item in part.items()}
        if isinstance(part, list | tuple):
            return [apart(item, f"{at}.{number}") for number, item in enumerate(part)]
        if part is None or isinstance(part, bool | int | float | str):
            return part
        raise Mt2stError(f"{at} is a {type(part).__name__}; a checkpointed state holds plain values and tensors alone")

    return apart(value, place), tensors


def put_together(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `taken_apart` took apart, with lists for tuples."""
    if isinstance(value, dict):
        if set(value) == {_MARK}:
            return tensors[value[_MARK]]
        return {key: put_together(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [put_together(item, tensors) for item in value]
    return value
