"""The IDX format of MNIST and its kin: a magic number, the dimensions, then unsigned bytes; packed by gzip or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from mt2st.errors import Mt2stError

# Larger files are refused before they are unpacked: MNIST-like sets have some 50 MB.
MAX_BYTES = 2 << 30


def read_idx_images(path: Path) -> np.ndarray:
    """uint8 [N, height, width]."""
    return _read(path, dimensions=3)


def read_idx_labels(path: Path) -> np.ndarray:
    """uint8 [N]."""
    return _read(path, dimensions=1)


def _read(path: Path, dimensions: int) -> np.ndarray:
    """Raises Mt2stError for a file that is not IDX of unsigned bytes with so many dimensions, or that is cut off."""
    header_bytes = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(header_bytes)
            if len(header) < header_bytes or header[:4] != bytes((0, 0, 8, dimensions)):
                raise Mt2stError(
                    f"{path} is no IDX file of unsigned bytes with {dimensions} dimensions (it begins with "
                    f"{header[:4].hex()})"
                )
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = int(np.prod(shape, dtype=np.float64))
            if size > MAX_BYTES:
                raise Mt2stError(f"{path} declares {shape}, more than {MAX_BYTES} bytes; is it damaged?")
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Mt2stError(f"{path} cannot be unpacked ({error}); download it again") from None
    if len(content) != size:
        raise Mt2stError(
            f"{path} declares {size} bytes and holds {'more' if len(content) > size else len(content)}; download it "
            "again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
