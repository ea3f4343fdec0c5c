"""State beside model and optimiser: plain values and tensors, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mt2st.errors import Mt2stError
from mt2st.training.checkpoint import load_checkpoint, load_extra, newest_checkpoint, save_checkpoint
from mt2st.training.extra_state import put_together, taken_apart


def test_a_state_is_taken_apart_and_put_together() -> None:
    state = {"a": [1, 2.5, None, "x", {"t": torch.arange(3)}], "b": {"inner": {"t": torch.zeros(2, 2)}}, "c": True}
    plain, tensors = taken_apart(state)
    assert len(tensors) == 2
    again = put_together(json.loads(json.dumps(plain)), tensors)
    assert torch.equal(again["a"].pop()["t"], torch.arange(3))
    assert torch.equal(again["b"].pop("inner")["t"], torch.zeros(2, 2))
    assert again == {"a": [1, 2.5, None, "x"], "b": {}, "c": True}


@pytest.mark.parametrize(("state", "words"), [({"a": {1: 2}}, "key 1"), ({"a": {"b": object()}}, "state.a.b is a obj")])
def test_what_has_no_plain_form_is_named(state: object, words: str) -> None:
    with pytest.raises(Mt2stError, match=words):
        taken_apart(state)


def test_a_checkpoint_keeps_it_beside_the_tensors_and_notices_damage(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    extra = {"listening": {"heard": [0.1, 0.2]}, "balancing": {"logits": torch.tensor([0.5, -0.5])}}
    folder = save_checkpoint(tmp_path, 3, model, optimizer, {"mine": 1}, extra=extra)
    found = load_extra(folder, load_checkpoint(folder, model, optimizer))
    assert found["listening"] == extra["listening"]
    assert torch.equal(found["balancing"]["logits"], torch.tensor([0.5, -0.5]))
    plain = save_checkpoint(tmp_path, 2, model, optimizer, {"mine": 1})
    assert load_extra(plain, load_checkpoint(plain, model, optimizer)) == {}
    assert sorted(path.name for path in plain.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    content = (folder / "extra.safetensors").read_bytes()
    (folder / "extra.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert newest_checkpoint(tmp_path) is not None
    assert newest_checkpoint(tmp_path)[0] == plain  # type: ignore[index]
