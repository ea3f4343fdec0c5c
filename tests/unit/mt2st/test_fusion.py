"""Fusion: texts about one image share what is computed of it, and tokens alone are the tokens of both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mt2st.encoders import TowerOutput
from mt2st.encoders.fusion import Fusion
from mt2st.flops import FlopCounter


def gradients(fusion: Fusion, image: Tensor, text: Tensor, mask: Tensor, image_of: Tensor | None) -> list[Tensor]:
    """Tokens, joint embedding, and the gradients of image and parameters."""
    image = image.clone().requires_grad_()
    tokens, joint = fusion(image, text, mask, image_of)
    (tokens.sin().sum() + joint.square().sum()).backward()
    found = [tokens.detach(), joint.detach(), image.grad]
    found += [parameter.grad for parameter in fusion.parameters()]
    fusion.zero_grad()
    return found


@pytest.mark.parametrize("layers", [0, 2])
def test_texts_about_one_image_are_as_if_each_had_its_own(layers: int) -> None:
    torch.manual_seed(0)
    fusion = Fusion(image_width=6, text_width=4, width=8, layers=layers)
    image, text = torch.randn(2, 3, 6), torch.randn(5, 7, 4)
    mask = torch.arange(7)[None] < torch.tensor([7, 3, 1, 5, 2])[:, None]
    image_of = torch.tensor([1, 0, 1, 1, 0])
    shared = gradients(fusion, image, text, mask, image_of)
    copied = gradients(fusion, image[image_of], text, mask, None)
    by_image = torch.zeros_like(image).index_add(0, image_of, copied[2])
    for found, expected in zip(shared, [*copied[:2], by_image, *copied[3:]], strict=True):
        assert (found is None) == (expected is None)  # without layers nothing reads image tokens
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_tokens_at_positions_are_those_of_all(layers: int) -> None:
    torch.manual_seed(0)
    fusion = Fusion(image_width=6, text_width=4, width=8, layers=layers)
    image, text = torch.randn(5, 3, 6), torch.randn(5, 7, 4)
    mask = torch.arange(7)[None] < torch.tensor([7, 3, 1, 5, 2])[:, None]
    positions = torch.tensor([[6, 0], [2, 1], [0, 0], [3, 4], [1, 0]])
    found = fusion.tokens(image, TowerOutput(text, text[:, 0]), mask, positions)
    expected = fusion(image, text, mask)[0].gather(1, positions[..., None].expand(-1, -1, 8))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_last_layer_runs_for_the_tokens_that_are_asked_for() -> None:
    fusion = Fusion(image_width=6, text_width=4, width=8, layers=1, mlp_ratio=2.0)
    image, text, mask = torch.randn(5, 3, 6), torch.randn(5, 7, 4), torch.ones(5, 7, dtype=torch.bool)
    output = TowerOutput(text, text[:, 0])
    with FlopCounter() as some:
        fusion.tokens(image, output, mask, torch.zeros(5, 2, dtype=torch.int64))
    with FlopCounter() as all_of_them:
        fusion.tokens(image, output, mask, torch.arange(7).expand(5, 7))
    each = 8 * 8 + 2 * 10 * 8 + 8 * 8 + 2 * 8 * 16  # query, attention to 10 tokens, output, MLP
    assert all_of_them.total - some.total == 2 * 5 * 5 * each


def test_an_image_is_projected_once_for_all_texts_about_it() -> None:
    fusion = Fusion(image_width=6, text_width=4, width=8, layers=0)
    image, text, mask = torch.randn(2, 3, 6), torch.randn(5, 7, 4), torch.ones(5, 7, dtype=torch.bool)
    with FlopCounter() as shared:
        fusion(image, text, mask, torch.tensor([1, 0, 1, 1, 0]))
    with FlopCounter() as alone:
        fusion(image[[1, 0, 1, 1, 0]], text, mask)
    assert alone.total - shared.total == 2 * 3 * 6 * 8  # three texts more


def test_a_text_of_padding_alone_has_a_joint_embedding_of_numbers() -> None:
    fusion = Fusion(image_width=6, text_width=4, width=8, layers=1)
    tokens, joint = fusion(torch.randn(1, 3, 6), torch.randn(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool))
    assert torch.isfinite(tokens).all()
    assert torch.isfinite(joint).all()
