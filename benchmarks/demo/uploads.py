"""A picture that somebody chose, as the browser hands it over: a data: address, decoded in memory and never kept."""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image

from mt2st.data.images import ImageError, load_rgb
from mt2st.errors import Mt2stError

_HEAD_CHARACTERS = 200  # of "data:image/svg+xml;charset=utf-8;base64,"


def decoded(address: str, *, most_bytes: int, most_pixels: int) -> Image.Image:
    """The picture of a data: address, RGB at its own size.

    Args:
        address: "data:…;base64,…"; what it says of its type is not believed.
        most_bytes: largest file.
        most_pixels: largest width × height.

    Raises:
        Mt2stError: none was chosen, it is too large, or no picture that can be decoded.
    """
    if not address:
        raise Mt2stError("choose a picture first, or take an example")
    comma = address.find(",", 0, _HEAD_CHARACTERS)
    if not address.startswith("data:") or comma < 0 or not address[:comma].endswith(";base64"):
        raise Mt2stError("this is no picture; choose a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file")
    if (len(address) - comma) * 3 // 4 > most_bytes + 2:
        raise Mt2stError(f"the file is larger than {most_bytes / 1e6:g} MB; choose a smaller one")
    try:
        content = base64.b64decode(address[comma + 1 :], validate=True)
    except (binascii.Error, ValueError):
        raise Mt2stError("the file arrived damaged; choose it again") from None
    try:
        return load_rgb(content, max_pixels=most_pixels, name="the picture")
    except ImageError as error:
        raise Mt2stError(f"{str(error).split(';')[0]}; choose another one") from None


def data_address(picture: Image.Image | bytes) -> str:
    """A picture, or the bytes of a PNG, as a data: address."""
    if not isinstance(picture, bytes):
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        picture = stream.getvalue()
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
