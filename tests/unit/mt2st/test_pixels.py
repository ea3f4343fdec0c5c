"""Every kind of image file becomes the same kind of array, or a clear error."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mt2st.data.images import ImageError, decode_image, load_rgb
from mt2st.errors import Mt2stError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def plain(*colour: int, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new(mode, size, colour if len(colour) > 1 else colour[0])


def centre(content: bytes) -> list[int]:
    return decode_image(content, 4)[2, 2].tolist()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_every_format_by_its_content(kind: str) -> None:
    lossless = {"lossless": True} if kind == "WEBP" else {}
    assert centre(encoded(plain(250, 10, 30), kind, **lossless)) == [250, 10, 30]


def test_cmyk_becomes_rgb() -> None:
    red, green, blue = centre(encoded(plain(0, 255, 255, 0, mode="CMYK"), "JPEG"))
    assert red > 240
    assert max(green, blue) < 20


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))
    assert centre(encoded(grey)) == [128, 128, 128]
    assert centre(encoded(grey, "TIFF")) == [128, 128, 128]


def test_transparency_is_laid_on_white() -> None:
    assert centre(encoded(plain(0, 0, 0, 0, mode="RGBA"))) == [255, 255, 255]
    assert centre(encoded(plain(0, 0, mode="LA"))) == [255, 255, 255]
    palette = plain(7, mode="P")
    palette.putpalette(bytes(range(256)) * 3)
    assert centre(encoded(palette, transparency=7)) == [255, 255, 255]


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [plain(255, 0, 0), plain(0, 0, 255)]
    assert centre(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == [255, 0, 0]


def test_exif_rotation_is_applied() -> None:
    image = plain(0, 0, 0, size=(40, 20))
    image.paste((255, 255, 255), (0, 0, 20, 20))  # left half white
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90° clockwise
    turned = load_rgb(encoded(image, "JPEG", exif=exif, quality=95))
    assert turned.size == (20, 40)
    assert turned.getpixel((10, 5)) > (200, 200, 200)
    assert turned.getpixel((10, 35)) < (60, 60, 60)


def test_one_pixel_and_wrong_suffix_are_read(tmp_path: Path) -> None:
    assert decode_image(encoded(plain(9, 8, 7, size=(1, 1))), 5).tolist() == [[[9, 8, 7]] * 5] * 5
    (tmp_path / "wrong.jpg").write_bytes(encoded(plain(9, 8, 7)))
    assert decode_image(tmp_path / "wrong.jpg", 1).tolist() == [[[9, 8, 7]]]


@pytest.mark.parametrize(("fit", "expected"), [("squash", [0, 255]), ("crop", [128, 128]), ("pad", [255, 255])])
def test_fits(fit: str, expected: list[int]) -> None:
    image = Image.new("RGB", (90, 30), (128, 128, 128))
    image.paste((0, 0, 0), (0, 0, 30, 30))
    image.paste((255, 255, 255), (60, 0, 90, 30))
    pixels = decode_image(encoded(image), 30, fit=fit)
    row = pixels[15] if fit != "pad" else pixels[:, 15]
    assert [int(row[1, 0]), int(row[-2, 0])] == expected
    if fit == "pad":
        assert pixels[15, 1, 0] < 10, "the picture itself is in the middle band"


def test_a_missing_file_is_told_from_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png does not exist") as caught:
        decode_image(tmp_path / "nowhere.png", 4)
    assert caught.value.missing
    (tmp_path / "bad.png").write_bytes(b"hello")
    with pytest.raises(ImageError, match=r"bad\.png cannot be decoded") as caught:
        decode_image(tmp_path / "bad.png", 4)
    assert not caught.value.missing


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_truncated_files_are_refused(kind: str) -> None:
    rng = np.random.default_rng(0)
    content = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(content[: len(content) // 2], 8)


def bomb(side: int) -> bytes:
    """A tiny PNG that claims side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 30_000, 2_000_000])
def test_bombs_are_refused_before_decoding(side: int) -> None:
    with pytest.raises(ImageError, match="above the limit max_pixels = 89478485"):
        decode_image(bomb(side), 8)


def test_the_limit_is_a_knob() -> None:
    content = encoded(plain(1, 2, 3, size=(20, 20)))
    assert decode_image(content, 2, max_pixels=400).shape == (2, 2, 3)
    with pytest.raises(ImageError, match=r"20×20 pixels above the limit max_pixels = 399.*--max-pixels"):
        decode_image(content, 2, max_pixels=399)


def test_float_pixels_and_bad_arguments_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        decode_image(encoded(Image.fromarray(np.zeros((3, 3), dtype=np.float32)), "TIFF"), 4)
    with pytest.raises(Mt2stError, match="did you mean 'crop'"):
        decode_image(encoded(plain(1, 2, 3)), 4, fit="crops")
    with pytest.raises(Mt2stError, match="image_size = 0"):
        decode_image(encoded(plain(1, 2, 3)), 0)


SEEDS = [encoded(plain(3, 4, 5), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=6),
    st.integers(0, 600),
)
def test_mutated_files_decode_or_say_why(seed: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(seed)
    for at, value in changes:
        content[at % len(content)] = value
    try:
        assert decode_image(bytes(content[: max(1, len(content) - cut % 7)]), 3, max_pixels=1 << 20).shape == (3, 3, 3)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
