"""One image in, one fixed-size RGB array out, whatever the file holds.

What each kind of file becomes is decided here, once, for preparing and for reading stored originals alike: EXIF
rotation is applied; transparency is laid on white; CMYK, palette and grey become RGB; 16-bit greys are scaled to 8 bits
(not clipped); of an animation the first frame counts; the content decides the format, never the suffix.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mt2st.errors import Mt2stError, check_range, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

FITS = ("squash", "crop", "pad")
"""how other aspect ratios become square; also in a checkpoint's own way, see `checked_fit`"""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
"""endings by which picture files are found in a folder; what a file is, its content decides"""
DEFAULT_MAX_PIXELS = 89_478_485  # Pillow's own limit, above which it warns of a decompression bomb
HIGHEST_MAX_PIXELS = 1_000_000_000  # what max_pixels may be raised to: 4 GB, at Pillow's 4 bytes a pixel
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# What Pillow's parsers are known to raise on hostile bytes, beside OSError.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, OverflowError, LookupError, TypeError, AttributeError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip
_PILLOW_LIMIT = threading.Lock()


class ImageError(Mt2stError):
    """An image that cannot be used; `missing` tells an absent file from a bad one."""

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, bool]]:
        return ImageError, (str(self), self.missing)


def picture_files(folder: Path) -> list[Path]:
    """Picture files of a folder and its subfolders, by their names' endings, sorted.

    Raises:
        Mt2stError: no folder, or no picture in it.
    """
    if not folder.is_dir():
        raise Mt2stError(f"{folder} is no folder of pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_ENDINGS and path.is_file())
    if not found:
        raise Mt2stError(f"{folder} holds no pictures ({' '.join(PICTURE_ENDINGS)})")
    return found


def decode_image(
    image: Path | bytes | Image, size: int, *, fit: str = "squash", max_pixels: int = DEFAULT_MAX_PIXELS, name: str = ""
) -> np.ndarray:
    """Decode an image to uint8 RGB of `size` × `size`.

    Args:
        image: a path, the encoded bytes, or a PIL image.
        size: side of the result, in pixels.
        fit: how other aspect ratios become square: "squash" keeps everything and distorts; "crop" cuts the longer side
            at the centre; "pad" adds white at the shorter side; or a checkpoint's own way (see `checked_fit`).
        max_pixels: largest width × height that is decoded (a small file can claim a picture of many gigabytes), at most
            `HIGHEST_MAX_PIXELS`. Up to the default, a lower limit set in Pillow holds too; above it, this one alone.
        name: what errors call the image; by default its path.

    Returns:
        uint8 array [size, size, 3].

    Raises:
        ImageError: the file is missing, is no image of a known format, is truncated, or is larger than `max_pixels`.
        Mt2stError: a value that is out of range.
    """
    return fit_image(load_rgb(image, max_pixels=max_pixels, name=name), size, fit)


def load_rgb(image: Path | bytes | Image, *, max_pixels: int = DEFAULT_MAX_PIXELS, name: str = "") -> Image:
    """Decode an image to a PIL image of mode RGB at its own size; arguments and errors as for `decode_image`."""
    from PIL import Image as Pillow  # heavy: not needed to list or describe datasets

    name = name or (str(image) if isinstance(image, Path) else "the image")
    check_max_pixels(max_pixels)
    raised = max_pixels > DEFAULT_MAX_PIXELS
    limit = max_pixels if raised else min(max_pixels, Pillow.MAX_IMAGE_PIXELS or max_pixels)
    try:
        if isinstance(image, Path):
            image = image.read_bytes()
        with _pillow_limit(max_pixels) if raised else nullcontext():
            opened = Pillow.open(io.BytesIO(image), formats=_FORMATS) if isinstance(image, bytes) else image
            if opened.width * opened.height > limit:
                raise ImageError(_too_large(name, f"{opened.width}×{opened.height} pixels", limit))
            return _to_rgb(opened, name)
    except ImageError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(
            f"{name} does not exist; check the source folder, or skip such images with --on-error skip", True
        ) from None
    except Pillow.DecompressionBombError:
        raise ImageError(_too_large(name, "a picture far", limit)) from None
    except _DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{name} cannot be decoded ({reason}); replace the file, or skip such images with --on-error skip"
        ) from None


def fit_image(image: Image, size: int, fit: str) -> np.ndarray:
    """Resize an RGB image to uint8 [size, size, 3] (bicubic, with antialiasing); `fit` as for `decode_image`."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    check_range("image_size", size, 1, 16384, "give the side of the stored square in pixels")
    kind, edge, interpolation = checked_fit(fit)
    square = (size, size)
    if edge:
        image = _shortest_edge(image, size, edge, interpolation, floor=kind == "edge-floor")
    elif kind == "crop":
        image = ImageOps.fit(image, square, method=Pillow.Resampling.BICUBIC)
    elif kind == "pad":
        image = ImageOps.pad(image, square, method=Pillow.Resampling.BICUBIC, color=(255, 255, 255))
    elif image.size != square:
        image = image.resize(square, Pillow.Resampling[interpolation.upper()])
    return np.asarray(image, dtype=np.uint8)


def checked_fit(fit: str) -> tuple[str, int, str]:
    """Kind, length of the shortest edge in pixels (0 = none) and interpolation of a `fit`.

    Beside `FITS`, which are bicubic, the ways of checkpoints: "squash:bilinear"; and "edge:256:bicubic", which brings
    the shortest edge to 256 pixels and cuts the square out of the centre, as torchvision's Resize and CenterCrop do.
    Where the margin is odd, those round half a pixel to even; "edge-floor", as transformers does, rounds it down.

    Raises:
        Mt2stError: another text.
    """
    kind, *rest = fit.split(":")
    edges = ("edge", "edge-floor")
    edge = int(rest.pop(0)) if kind in edges and rest and rest[0].isdecimal() else 0
    interpolation = rest.pop(0) if rest and kind in ("squash", *edges) else "bicubic"
    if rest or interpolation not in INTERPOLATIONS or (kind not in FITS and not edge):
        raise unknown_name("fit", fit, FITS, 'Or "squash:bilinear", "edge:256:bicubic" for a checkpoint\'s own way.')
    return kind, edge, interpolation


def _shortest_edge(image: Image, size: int, edge: int, interpolation: str, *, floor: bool) -> Image:
    from PIL import Image as Pillow

    check_range("image_size", size, 1, edge, "the square is cut out of an image whose shortest edge that is")
    width, height = image.size
    longest = int(edge * max(width, height) / min(width, height))
    scaled = (edge, longest) if width <= height else (longest, edge)
    if image.size != scaled:
        image = image.resize(scaled, Pillow.Resampling[interpolation.upper()])
    left, top = ((side - size) // 2 if floor else round((side - size) / 2) for side in scaled)
    return image.crop((left, top, left + size, top + size))


def check_max_pixels(max_pixels: int) -> None:
    """Raise `Mt2stError` for a limit on pixels that is out of range."""
    check_range("max_pixels", max_pixels, 1, HIGHEST_MAX_PIXELS, "larger images must be shrunk before")


def _too_large(name: str, found: str, limit: int) -> str:
    cure = "shrink it"
    if limit < HIGHEST_MAX_PIXELS:
        cure += f", or raise --max-pixels (up to {HIGHEST_MAX_PIXELS}) if you trust it"
    return f"{name} holds {found} above the limit max_pixels = {limit}; {cure}"


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Pillow refuses images by a limit of its own, one for the process; raise it meanwhile, one thread at a time."""
    from PIL import Image as Pillow

    with _PILLOW_LIMIT:
        before = Pillow.MAX_IMAGE_PIXELS
        Pillow.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Pillow.MAX_IMAGE_PIXELS = before


def _to_rgb(image: Image, name: str) -> Image:
    from PIL import Image as Pillow
    from PIL import ImageOps

    image.seek(0)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        # Pillow's own conversion clips 16 bits to 255, which turns nearly every such image white.
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError(f"{name} has integer values outside 0..65535; convert it to 8 or 16 bits")
        image = Pillow.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels, whose range is unknown; convert it to 8 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Pillow.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Pillow.alpha_composite(white, layer)
    return image.convert("RGB")
