"""Rotation, masked patches and two views: what is turned, hidden and paired."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch.nn import functional

from mt2st.encoders.image_transformer import EncodedImage, ImageConfig, ImageEncoder
from mt2st.errors import Mt2stError
from mt2st.objectives.masked_patches import MaskedPatchObjective, patches_of
from mt2st.objectives.rotation import rotated
from mt2st.objectives.two_views import TwoViewObjective, random_view, two_view_loss
from tests.helpers.unimodal import tiny_vit


def test_turns_are_quarter_turns_of_each_picture() -> None:
    pixels = torch.arange(4 * 3 * 4 * 4).reshape(4, 3, 4, 4)
    turns = torch.tensor([0, 1, 2, 3])
    found = rotated(pixels, turns)
    for at, turn in enumerate(turns.tolist()):
        assert torch.equal(found[at], torch.rot90(pixels[at], turn, (1, 2)))


def test_patches_are_cut_row_by_row() -> None:
    pixels = torch.arange(16).reshape(1, 1, 4, 4)
    assert patches_of(pixels, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_the_encoder_hides_exactly_the_asked_share_and_the_loss_looks_at_hidden_patches_only() -> None:
    objective = MaskedPatchObjective(4, 2, rate=0.25)
    seen = {}

    def encode(pixels: torch.Tensor, hidden: torch.Tensor) -> EncodedImage:
        seen["hidden"] = hidden
        return EncodedImage(torch.zeros(2, 16, 4), torch.zeros(2, 4))

    pixels = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    with torch.no_grad():
        objective.head.bias.fill_(0.5)
    loss = objective(_features(pixels, encode))
    assert seen["hidden"].sum(1).tolist() == [4, 4]
    assert loss.item() == pytest.approx(0.5)  # wanted 1, said 0.5


def _features(pixels: torch.Tensor, encode: object) -> object:
    class Features(dict):
        encoder = SimpleNamespace(encode=encode)

    return Features(pixels=pixels)


def test_hidden_pixels_do_not_reach_the_encoder() -> None:
    encoder = tiny_vit().eval()
    pixels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    hidden = torch.zeros(1, 16, dtype=torch.bool)
    hidden[0, 0] = True
    changed = pixels.clone()
    changed[..., :2, :2] = 0
    with torch.no_grad():
        assert torch.equal(encoder.encode(pixels, hidden).tokens, encoder.encode(changed, hidden).tokens)
        assert not torch.equal(encoder.encode(pixels).tokens, encoder.encode(changed).tokens)


def test_two_view_loss_against_the_slow_sum() -> None:
    places = functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    total = 0.0
    for row in range(6):
        scores = [float(places[row] @ places[column]) / 0.3 for column in range(6)]
        partner = (row + 3) % 6
        total -= scores[partner] - math.log(
            sum(math.exp(score) for column, score in enumerate(scores) if column != row)
        )
    assert two_view_loss(places, 0.3).item() == pytest.approx(total / 6, rel=1e-5)


def test_views_without_change_are_the_picture_and_a_shift_repeats_the_border() -> None:
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(random_view(pixels, shift=0, contrast=0, erase=0), pixels.float())
    torch.manual_seed(0)
    shifted = random_view(pixels, shift=0.25, contrast=0, erase=0)
    assert not torch.equal(shifted, pixels.float())
    for picture, original in zip(shifted, pixels, strict=True):
        assert set(picture.unique().tolist()) <= set(original.float().unique().tolist())
    erased = random_view(pixels, shift=0, contrast=0, erase=0.5)
    assert (erased != pixels).any(1).flatten(1).sum(1).max() <= 16


def test_knobs_out_of_range() -> None:
    with pytest.raises(Mt2stError, match="temperature = 0"):
        TwoViewObjective(4, temperature=0)
    with pytest.raises(Mt2stError, match="rate"):
        MaskedPatchObjective(4, 2, rate=0)
    with pytest.raises(Mt2stError, match="no multiple of patch_size = 3"):
        ImageConfig(image_size=8, patch_size=3)
    with pytest.raises(Mt2stError, match="no multiple of heads"):
        ImageConfig(width=10, heads=4)


def test_pictures_of_another_size_are_refused_with_the_cure() -> None:
    with pytest.raises(Mt2stError, match=r"16×16 px.*image_size=8"):
        tiny_vit().encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_a_vit_checkpoint_gives_its_own_tokens_and_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(**SIZES, image_size=8, patch_size=4), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "vit")
    encoder = ImageEncoder.pretrained(str(tmp_path / "vit")).eval()
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        tokens = model.eval()(pixel_values=pixels.float() / 127.5 - 1).last_hidden_state[:, 1:]
        torch.testing.assert_close(encoder.encode(pixels).tokens, tokens, rtol=1e-4, atol=1e-5)
    assert encoder.encode(pixels, torch.ones(2, 4, dtype=torch.bool)).tokens.shape == (2, 4, 16)
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=9, max_position_embeddings=8, **SIZES))
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(Mt2stError, match="is a bert model, not a ViT"):
        ImageEncoder.pretrained(str(tmp_path / "bert"))
