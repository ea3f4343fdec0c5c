"""What parts of a run remember goes through a checkpoint's JSON without losing a bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from mt2st.training.stateful import load_states, states_of


class Remembers:
    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state: Mapping[str, Any] = state

    def state_dict(self) -> Mapping[str, Any]:
        return self.state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = state


def test_states_survive_json_to_the_bit() -> None:
    torch.manual_seed(0)
    tensors = [
        torch.randn(5),
        torch.randn(2, 3, dtype=torch.float64),
        torch.tensor(7),
        torch.tensor([True]),
        torch.ones(0),
    ]
    state = {"tensors": tensors, "best": 0.1 + 0.2, "stopped": {"contrastive": 3, "masked_lm": None}}
    parts = {"one": Remembers(state), "two": Remembers({"count": 1})}
    stored = json.loads(json.dumps(states_of(parts), allow_nan=False))
    again = {"one": Remembers({}), "two": Remembers({})}
    load_states(again, stored)
    found = again["one"].state
    for before, after in zip(tensors, found["tensors"], strict=True):
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
    assert {**found, "tensors": None} == {**state, "tensors": None}
    assert again["two"].state == {"count": 1}
