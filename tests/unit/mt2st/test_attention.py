"""Packed attention against `nn.MultiheadAttention`: outputs, gradients, masks, FLOPs, and what it leaves alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mt2st.encoders.attention import SHORT, PackedAttention, pack_attention
from mt2st.flops import FlopCounter

ROWS, WIDTH, HEADS = 3, 8, 2


def pair(**how: Any) -> tuple[nn.MultiheadAttention, PackedAttention]:
    """torch's attention and ours, with one start; biases are not zero."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **how)
    for name, parameter in theirs.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    ours: Any = copy.deepcopy(theirs)
    pack_attention(ours)
    assert type(ours) is PackedAttention
    return theirs, ours


def masks(length: int) -> dict[str, Tensor | None]:
    causal = torch.full((length, length), float("-inf")).triu(1)
    padding = torch.zeros(ROWS, 1, length)
    padding[1, :, max(1, length - 1) :] = float("-inf")  # a first token is never padding
    each = padding.expand(-1, length, -1).repeat_interleave(HEADS, 0).contiguous()
    return {"none": None, "causal": causal, "padding": each, "both": causal + each, "bool": causal < 0}


def results(attention: nn.MultiheadAttention, tokens: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Output, and the gradients of input and parameters."""
    tokens = tokens.clone().requires_grad_()
    output = attention(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
    (output * torch.arange(output.numel()).view(output.shape).sin()).sum().backward()
    gradients = {name: parameter.grad for name, parameter in attention.named_parameters()}
    return {"output": output.detach(), "tokens": tokens.grad, **gradients}  # type: ignore[dict-item]


@pytest.mark.parametrize("mask", ["none", "causal", "padding", "both", "bool"])
@pytest.mark.parametrize("length", [1, 2, 5, SHORT, SHORT + 1])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_torch(length: int, mask: str, training: bool) -> None:
    tokens = torch.randn(ROWS, length, WIDTH, generator=torch.Generator().manual_seed(1))
    theirs, ours = (results(each.train(training), tokens, masks(length)[mask]) for each in pair())
    assert set(theirs) == set(ours)
    for name, expected in theirs.items():
        torch.testing.assert_close(
            ours[name], expected, rtol=1e-5, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("length", [6, SHORT + 6])
def test_two_precisions_agree(length: int) -> None:
    tokens = torch.randn(ROWS, length, WIDTH)
    _, ours = pair()
    expected = results(ours, tokens, None)["output"]
    found = results(copy.deepcopy(ours).double(), tokens.double(), None)["output"]
    torch.testing.assert_close(found.float(), expected)
    with torch.autocast("cpu", torch.bfloat16):
        half = results(ours, tokens, None)["output"]
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


def test_what_the_faster_way_does_not_serve_is_torchs_own() -> None:
    theirs, ours = pair()
    tokens, others = torch.randn(ROWS, 5, WIDTH), torch.randn(ROWS, 7, WIDTH)
    real = torch.zeros(ROWS, 5, dtype=torch.bool)
    real[0, 3:] = True
    for arguments, how in (
        ((tokens, others, others), {"need_weights": False}),
        ((tokens, tokens, tokens), {}),
        ((tokens, tokens, tokens), {"need_weights": False, "key_padding_mask": real}),
        ((tokens[0], tokens[0], tokens[0]), {"need_weights": False}),
    ):
        for expected, found in zip(theirs(*arguments, **how), ours(*arguments, **how), strict=True):
            assert (expected is None and found is None) or torch.equal(expected, found)


def test_a_sequence_of_padding_alone_gets_numbers_and_leaves_the_others_alone() -> None:
    theirs, ours = pair()
    mask = torch.zeros(ROWS * HEADS, 4, 4)
    mask[HEADS : 2 * HEADS] = float("-inf")  # of the second sequence
    tokens = torch.randn(ROWS, 4, WIDTH)
    expected, found = (results(each, tokens, mask) for each in (theirs, ours))
    assert all(torch.isfinite(value).all() for value in found.values())
    for part in ("output", "tokens"):
        torch.testing.assert_close(found[part][[0, 2]], expected[part][[0, 2]])


def test_dropout_drops_weights_in_training_alone() -> None:
    theirs, ours = pair(dropout=0.5)
    tokens = torch.randn(ROWS, 5, WIDTH)
    torch.manual_seed(3)
    dropped = results(ours, tokens, None)["output"]
    assert not torch.allclose(dropped, results(ours, tokens, None)["output"])
    torch.testing.assert_close(
        results(ours.eval(), tokens, None)["output"], results(theirs.eval(), tokens, None)["output"]
    )


def test_others_stay_and_names_too() -> None:
    odd = nn.ModuleList(
        [
            nn.MultiheadAttention(WIDTH, HEADS),  # batches come second
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, kdim=4),
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_bias_kv=True),
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_zero_attn=True),
        ]
    )
    pack_attention(odd)
    assert {type(each) for each in odd} == {nn.MultiheadAttention}
    theirs, ours = pair()
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_flops_of_the_short_way_by_hand() -> None:
    _, ours = pair()
    tokens = torch.randn(ROWS, 5, WIDTH)
    with FlopCounter() as counter:
        results(ours, tokens, None)
    linear = 2 * ROWS * 5 * WIDTH * (3 * WIDTH + WIDTH)  # the packed projection and the output's
    products = 2 * 2 * ROWS * HEADS * 5 * 5 * (WIDTH // HEADS)  # scores, and their sums over values
    assert counter.total == 3 * (linear + products)  # a backward pass has two products for each
