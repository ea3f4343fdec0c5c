"""Outputs of a frozen tower, kept and read: the same numbers, no FLOPs, and nothing half made is taken for whole."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mt2st.encoders.factory import make_towers
from mt2st.encoders.fine_tuning import Part, fine_tune
from mt2st.encoders.frozen_outputs import FrozenOutputs, Texts, input_keys, keep_outputs, use_outputs
from mt2st.encoders.image_transformer import ImageConfig, ImageEncoder
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.text_transformer import TextConfig, TextEncoder
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError
from mt2st.flops import count_flops
from mt2st.training.checkpoint import load_weights, save_checkpoint
from tests.helpers.checkpoints import TEXTS, bert, clip, siglip, vit
from tests.helpers.tiny import tiny_config, tiny_towers

MANY = [*TEXTS, "a blue square", "it is red", "a red circle", "red", "is"]
Usage = namedtuple("Usage", "total used free")


class Pixels:
    """Random pictures as the inputs of a pass; the last two are the same."""

    content_hash = "pixels"

    def __init__(self, count: int = 7) -> None:
        random = torch.Generator().manual_seed(1)
        pixels = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=random)
        self.pixels = torch.cat([pixels, pixels[-1:]])
        self.items = len(self.pixels)

    def states(self, a_picture: int) -> int:
        return self.items * a_picture

    def batches(self) -> Iterator[Tensor]:
        yield from self.pixels.split(3)


def kept(folder: Path, part: Part, inputs: Any, **more: Any) -> FrozenOutputs:
    keep_outputs(folder, part, inputs, count=count_flops, **more)
    return FrozenOutputs(folder)


TOWERS: dict[str, Callable[[Path], Any]] = {
    "small": lambda folder: tiny_towers(),
    "clip": lambda folder: make_towers(f"hf:{clip(folder / 'clip')}"),
    "siglip": lambda folder: make_towers(f"hf:{siglip(folder / 'siglip')}"),
    "pair": lambda folder: make_towers(f"hf:{vit(folder / 'vit')}+{bert(folder / 'bert')}"),
    "small + checkpoint": lambda folder: make_towers(f"small+hf:{bert(folder / 'bert')}", small=tiny_config()),
}


@pytest.mark.parametrize("name", TOWERS)
def test_towers_read_what_they_would_compute(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    towers = TOWERS[name](tmp_path)
    encoder = VisionLanguageEncoder(towers, fusion_width=16).train()
    parts = encoder.parts()
    fine_tune(parts, freeze=("image", "text"))
    tokens, pictures = towers.tokenize(MANY), Pixels()
    used = int((tokens != towers.pad_id).any(0).nonzero().max()) + 1
    batch = {"pixels": pictures.pixels[2:], "caption_tokens": tokens[:, :used]}

    def made() -> list[Tensor]:
        features = encoder.features(batch)
        states = features.caption_tokens[features.caption_mask]
        return [features.image_tokens, features.image_embedding, states, features.caption_embedding]

    before = made()
    assert count_flops(lambda: made()) > 0
    live = count_flops(lambda: (towers.encode_image(batch["pixels"]), towers.encode_text(batch["caption_tokens"])))
    use_outputs(parts["image"], kept(tmp_path / "images", parts["image"], pictures))
    use_outputs(parts["text"], kept(tmp_path / "texts", parts["text"], Texts([tokens[:2], tokens], towers.pad_id)))
    for was, now in zip(before, made(), strict=True):
        torch.testing.assert_close(now, was, atol=1e-5, rtol=1e-5)
    left = count_flops(lambda: (towers.encode_image(batch["pixels"]), towers.encode_text(batch["caption_tokens"])))
    trained = [getattr(towers, f"{side}_projection", None) for side in ("image", "text")]
    matrices = [each.weight.numel() for each in trained if isinstance(each, torch.nn.Linear)]
    rows = (len(batch["pixels"]), len(tokens))
    expected = sum(2 * count * size for count, size in zip(rows, matrices, strict=False))
    assert left == expected < live, "only new projections are computed"


def test_text_and_image_encoders_read_embeddings_and_compute_what_is_masked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(MANY, 300)
    text = TextEncoder.small(TextConfig(16, 1, 2, context_length=8), tokenizer).train()
    fine_tune(text.parts(), freeze=("text",))
    tokens = text.tokenize(MANY)
    before = text.embed(tokens)
    outputs = kept(tmp_path / "texts", text.parts()["text"], Texts([tokens], text.pad_id), tokens=False)
    use_outputs(text.parts()["text"], outputs)
    torch.testing.assert_close(text.embed(tokens), before, atol=1e-6, rtol=1e-5)
    assert count_flops(lambda: text.embed(tokens)) == 0
    assert count_flops(lambda: text.encode(tokens)) > 0
    masked = tokens.clone()
    masked[0, 1] = text.mask_id
    assert outputs(masked) is None
    assert count_flops(lambda: text.embed(masked)) == count_flops(lambda: text.encode(tokens))
    with pytest.raises(Mt2stError, match="token states are not kept"):
        text.encode_text(tokens).tokens.sum()

    image, pictures = ImageEncoder.small(ImageConfig(16, 8, 16, 1, 2)).train(), Pixels()
    fine_tune(image.parts(), freeze=("image",))
    pixels = pictures.pixels
    hidden = torch.zeros(len(pixels), image.patches, dtype=torch.bool)
    expected = image.encode(pixels)
    use_outputs(image.parts()["image"], kept(tmp_path / "images", image.parts()["image"], pictures, tokens=False))
    torch.testing.assert_close(image.encode(pixels).embedding, expected.embedding, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(image.encode(pixels, hidden).tokens, expected.tokens)
    torch.testing.assert_close(image.encode(pixels.flip(-1)).tokens.shape, expected.tokens.shape)


@pytest.fixture
def frozen(tmp_path: Path) -> tuple[TextEncoder, Texts, Tensor]:
    encoder = TextEncoder.pretrained(bert(tmp_path / "bert"), 8)
    fine_tune(encoder.parts(), freeze=("text",))
    tokens = encoder.tokenize(MANY)
    return encoder, Texts([tokens], encoder.pad_id), tokens


def test_what_is_kept_and_what_it_cost(tmp_path: Path, frozen: tuple[TextEncoder, Texts, Tensor]) -> None:
    encoder, texts, tokens = frozen
    part, lines = encoder.parts()["text"], []
    whole = kept(tmp_path / "whole", part, texts, facts={"part": "text"}, announce=lines.append)
    assert texts.items == whole.facts["items"] == len(MANY) - 1, "equal texts are run once"
    batches = list(texts.batches())
    assert whole.facts["flops"] == count_flops(lambda: [encoder.encode_text(batch) for batch in batches])
    assert whole.facts["part"] == "text"
    states = int(sum((batch != encoder.pad_id).sum() for batch in batches))
    told = sum((tmp_path / "whole" / name).stat().st_size for name in ("embeddings.npy", "tokens.npy")) - 2 * 128
    assert told == 4 * 16 * (texts.items + states)
    assert lines == [f"{texts.items} inputs once; 0.0 MB in {tmp_path / 'whole'}"]
    half = kept(tmp_path / "half", part, texts, dtype="float16")
    torch.testing.assert_close(half(tokens).embedding, whole(tokens).embedding, atol=1e-3, rtol=1e-3)
    assert half(tokens).embedding.dtype == torch.float32
    wide = torch.nn.functional.pad(tokens, (0, 5), value=encoder.pad_id)
    assert (input_keys(wide, encoder.pad_id) == input_keys(tokens, encoder.pad_id)).all()
    assert whole(wide).tokens.shape == (*wide.shape, 16)


def test_an_interrupted_pass_leaves_nothing(tmp_path: Path, frozen: tuple[TextEncoder, Texts, Tensor]) -> None:
    encoder, texts, _ = frozen

    class Stopped:
        items, content_hash, states = texts.items, texts.content_hash, texts.states

        def batches(self) -> Iterator[Tensor]:
            yield from texts.batches()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "out" / "text", encoder.parts()["text"], Stopped())
    assert list((tmp_path / "out").iterdir()) == []


def test_torn_folders_are_refused(tmp_path: Path, frozen: tuple[TextEncoder, Texts, Tensor]) -> None:
    encoder, texts, _ = frozen
    folder = tmp_path / "text"
    kept(folder, encoder.parts()["text"], texts)
    for name in ("embeddings.npy", "tokens.npy", "keys.npy", "places.npy"):
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[:-1])
        with pytest.raises(Mt2stError, match=rf"{name} is missing or has not \d+ bytes.*delete that folder"):
            FrozenOutputs(folder)
        (folder / name).write_bytes(raw)
    FrozenOutputs(folder)
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace("float32", "float16"))
    with pytest.raises(Mt2stError, match="torn or edited"):
        FrozenOutputs(folder)


def test_too_little_disk_is_one_line(
    tmp_path: Path, frozen: tuple[TextEncoder, Texts, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, texts, _ = frozen
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 100))
    with pytest.raises(Mt2stError, match=r"need .* GB in .*, but 1e-07 GB are free; make room.*cache-frozen off"):
        kept(tmp_path / "text", encoder.parts()["text"], texts)
    assert not (tmp_path / "text").exists()


def test_other_weights_are_noticed_and_the_same_ones_are_not(
    tmp_path: Path, frozen: tuple[TextEncoder, Texts, Tensor]
) -> None:
    encoder, texts, tokens = frozen
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    save_checkpoint(tmp_path / "run", 1, encoder, optimizer, {})
    use_outputs(encoder.parts()["text"], kept(tmp_path / "text", encoder.parts()["text"], texts))
    before = encoder.embed(tokens)
    load_weights(tmp_path / "run" / "step-00000001", encoder)
    assert torch.equal(encoder.embed(tokens), before), "as after a resume"
    with torch.no_grad():
        next(encoder.model.parameters()).add_(1.0)
    with pytest.raises(Mt2stError, match="weights have changed"):
        encoder.embed(tokens)


def test_a_part_that_names_no_outputs_is_refused(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    with pytest.raises(Mt2stError, match="does not say what its outputs are"):
        kept(tmp_path / "text", Part(module, True), Pixels())
