"""The text tower whose last block runs for what is read alone, against open_clip's own forward pass."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from mt2st.encoders.attention import SHORT, pack_attention
from mt2st.encoders.last_block import TextOutput, serves
from mt2st.flops import FlopCounter

ROWS, WIDTH, HEADS, VOCABULARY, PAD, END = 4, 8, 2, 30, 0, 29


def tower(*, layers: int = 2, length: int = 7, causal: bool = False, padded: bool = False, **how: Any) -> Any:
    torch.manual_seed(0)
    text = open_clip.transformer.TextTransformer(
        context_length=length,
        vocab_size=VOCABULARY,
        width=WIDTH,
        heads=HEADS,
        layers=layers,
        output_dim=6,
        no_causal_mask=not causal,
        pad_id=PAD,
        eos_id=END,
        output_tokens=True,
        **how,
    )
    text.use_pad_mask = padded
    for name, parameter in text.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter)
    pack_attention(text)
    assert serves(text)
    return text


def some_ids(length: int) -> Tensor:
    """Texts of all lengths with an end, padded; the first has no padding."""
    ids = torch.randint(1, END, (ROWS, length), generator=torch.Generator().manual_seed(1))
    for row in range(ROWS):
        last = max(1, length - 1 - row)
        ids[row, last:] = PAD
        ids[row, last] = END
    return ids


def gradients(text: Any, outputs: list[Tensor]) -> list[Tensor]:
    total = sum((output * torch.arange(output.numel()).view(output.shape).sin()).sum() for output in outputs)
    found = torch.autograd.grad(total, list(text.parameters()), allow_unused=True)  # type: ignore[arg-type]
    return [torch.zeros(()) if each is None else each for each in found]


FORMS: dict[str, dict[str, Any]] = {
    "one layer": {"layers": 1, "padded": True, "pool_type": "eos"},
    "padding": {"padded": True, "pool_type": "eos"},
    "causal": {"causal": True, "pool_type": "argmax"},
    "nothing hidden": {"pool_type": "last"},
    "first": {"pool_type": "first", "proj_bias": True},
    "no projection": {"causal": True, "proj_type": "none"},
    "long": {"length": SHORT + 3, "padded": True, "pool_type": "eos"},
    "long causal": {"length": SHORT + 3, "causal": True},
    "layer scale": {"ls_init_value": 0.5, "padded": True, "pool_type": "eos"},
}


@pytest.mark.parametrize("order", ["embedding first", "tokens first", "at first", "embedding alone"])
@pytest.mark.parametrize("form", FORMS)
def test_outputs_and_gradients_are_those_of_open_clip(form: str, order: str) -> None:
    text = tower(**FORMS[form])
    ids = some_ids(text.context_length)
    positions = torch.tensor([[2, 0], [1, 1], [0, 2], [1, 0]])
    embedding, tokens = text(ids)
    at = tokens.gather(1, positions[..., None].expand(-1, -1, WIDTH))
    output = TextOutput(text, ids, ids.shape[1])
    found = {
        "embedding first": lambda: [output.embedding, output.tokens, output.at(positions)],
        "tokens first": lambda: [output.tokens, output.embedding, output.at(positions)],
        "at first": lambda: [output.at(positions), output.embedding, output.tokens],
        "embedding alone": lambda: [output.embedding],
    }[order]()
    expected = {
        "embedding first": [embedding, tokens, at],
        "tokens first": [tokens, embedding, at],
        "at first": [at, embedding, tokens],
        "embedding alone": [embedding],
    }[order]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients(text, found), gradients(text, expected), rtol=1e-4, atol=1e-4)


def test_the_states_of_tokens_that_were_put_behind_are_cut_off() -> None:
    text = tower(pool_type="last")
    ids = some_ids(7)
    output = TextOutput(text, ids, 4)
    embedding, tokens = text(ids)
    torch.testing.assert_close(list(output), [tokens[:, :4], embedding], rtol=1e-4, atol=1e-5)


def test_flops_are_those_of_what_is_read_and_nothing_is_computed_twice() -> None:
    text, length = tower(layers=1, padded=True, pool_type="eos"), 7
    ids = some_ids(length)
    square = WIDTH * WIDTH

    def cost(read: Any) -> int:
        with FlopCounter() as counter:
            read(TextOutput(text, ids, length))
        return counter.total

    key_value = 2 * square * length
    one = square + 2 * WIDTH * length + square + 2 * square * 4  # query, attention, output, MLP of 4 times the width
    projection = WIDTH * 6
    assert cost(lambda output: output.embedding) == 2 * ROWS * (key_value + one + projection)
    assert cost(lambda output: output.at(ids[:, :3] * 0)) == 2 * ROWS * (key_value + 3 * one)
    assert cost(lambda output: output.tokens) == 2 * ROWS * (key_value + length * one)
    everything = cost(lambda output: (output.tokens, output.tokens, output.embedding, output.embedding))
    assert everything == 2 * ROWS * (key_value + length * one + projection)


def test_gradient_checkpointing_changes_no_bit() -> None:
    found = []
    for on in (False, True):
        text = tower(layers=3, padded=True, pool_type="eos")
        text.transformer.grad_checkpointing = on
        output = TextOutput(text, some_ids(7), 7)
        found.append([output.embedding.detach(), *gradients(text, [output.embedding])])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_half_precision_gives_what_open_clip_gives() -> None:
    text = tower(padded=True, pool_type="eos")
    ids = some_ids(7)
    with torch.autocast("cpu", torch.bfloat16):
        embedding, tokens = text(ids)
        output = TextOutput(text, ids, 7)
        torch.testing.assert_close(output.embedding, embedding, rtol=0.03, atol=0.03)
        torch.testing.assert_close(output.tokens, tokens, rtol=0.03, atol=0.03)
    assert output.embedding.dtype == embedding.dtype


def test_towers_of_another_form_are_not_served() -> None:
    assert not serves(torch.nn.Linear(2, 2))
    plain = open_clip.transformer.TextTransformer(vocab_size=9, width=8, heads=2, layers=1, embed_cls=True)
    pack_attention(plain)
    assert not serves(plain)
    unlike = open_clip.transformer.TextTransformer(vocab_size=9, width=8, heads=2, layers=1, qk_norm=True)
    assert not serves(unlike)
