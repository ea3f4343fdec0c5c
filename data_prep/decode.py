"""Decoding images, SVG included: in this process while little is to do, in worker processes once it pays."""

from __future__ import annotations

import hashlib
import io
import math
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from data_prep.store import StoredImage
from data_prep.svg import draw_svg, is_svg
from mt2st.data.images import ImageError, check_max_pixels, fit_image, load_rgb
from mt2st.errors import Mt2stError, check_range

if TYPE_CHECKING:
    from PIL.Image import Image

# Starting processes costs about a second, so small sets are decoded here.
_SERIAL_SECONDS = 2.0
_KILLED = "a decoding process was killed, most likely for memory; run the command again with fewer --workers"

T = TypeVar("T")


@dataclass(frozen=True)
class ImageJob:
    """An image to work on; `image` is a path, encoded bytes or a PIL image, `name` says in errors which one it is."""

    key: bytes
    image: Any
    name: str

    def described(self) -> str:
        """The name for errors, with the path where there is one."""
        return f"{self.name} ({self.image})" if isinstance(self.image, Path) else self.name


class ImageTask(Generic[T]):
    """What is found out about a chunk of images, or will be."""

    def __init__(self, found: dict[bytes, T] | Future[dict[bytes, T]]) -> None:
        self._found = found

    def result(self) -> dict[bytes, T]:
        """The result for each key; waits for it."""
        if isinstance(self._found, dict):
            return self._found
        try:
            return self._found.result()
        except BrokenProcessPool:
            raise Mt2stError(_KILLED) from None


class ImagePool(Generic[T]):
    """Applies a function to chunks of images. `depth` chunks may be under way at once, which bounds memory."""

    def __init__(self, work: Callable[[Sequence[ImageJob]], dict[bytes, T]], workers: int | None) -> None:
        """`work` must be picklable; `workers`: None = all cores, once the work has taken 2 seconds here; 0 = in this
        process " "only.
        """
        if workers is not None:
            check_range("workers", workers, 0, 1024, "give the number of decoding processes")
        self._work = work
        self._workers = workers
        self._seconds = 0.0
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            self._start(workers)

    @property
    def depth(self) -> int:
        """How many chunks may wait for their turn."""
        return 0 if self._pool is None else 2 * (self._workers or 1) + 1

    def __enter__(self) -> ImagePool[T]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, jobs: Sequence[ImageJob]) -> ImageTask[T]:
        """Work on `jobs`, here or in a worker."""
        if not jobs:
            return ImageTask({})
        if self._workers is None and self._seconds > _SERIAL_SECONDS and (cores := _cores()) > 1:
            self._workers = cores
            self._start(cores)
        # PIL images do not travel well between processes, and are decoded already.
        if self._pool is not None and all(isinstance(job.image, Path | bytes) for job in jobs):
            try:
                with _hidden_main():
                    return ImageTask(self._pool.submit(self._work, list(jobs)))
            except BrokenProcessPool:
                raise Mt2stError(_KILLED) from None
        started = time.perf_counter()
        found = self._work(jobs)
        self._seconds += time.perf_counter() - started
        return ImageTask(found)

    def _start(self, workers: int) -> None:
        # "spawn": forking a process that already runs threads (Arrow's, torch's) can deadlock.
        self._pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts)


def decode_pool(
    size: int, fit: str, max_pixels: int, keep_encoded: bool, workers: int | None
) -> ImagePool[StoredImage]:
    """A pool that decodes images for the store."""
    return ImagePool(
        partial(decode_chunk, size=size, fit=fit, max_pixels=max_pixels, keep_encoded=keep_encoded), workers
    )


def decode_chunk(
    jobs: Sequence[ImageJob], *, size: int, fit: str, max_pixels: int, keep_encoded: bool
) -> dict[bytes, StoredImage]:
    """What the store keeps of each image; images that cannot be decoded carry their error."""
    found = {}
    for job in jobs:
        try:
            # Twice the stored square: sharp also where the fit cuts an SVG down to its shorter side.
            image = without_svg(job.image, side=2 * size, max_pixels=max_pixels, name=job.described())
            pixels = fit_image(load_rgb(image, max_pixels=max_pixels, name=job.described()), size, fit).tobytes()
            stored = _encoded_bytes(image) if keep_encoded else pixels
        except ImageError as error:
            found[job.key] = StoredImage(error=str(error), missing=error.missing)
            continue
        sha = hashlib.sha256(pixels).digest()
        found[job.key] = StoredImage(stored, sha, hashlib.sha256(stored).digest() if keep_encoded else sha, len(stored))
    return found


def without_svg(image: Path | bytes | Image, *, side: int, max_pixels: int, name: str) -> Path | bytes | Image:
    """`image` itself; where it is an SVG, the PNG of it, whose longer side has `side` pixels, fewer if `max_pixels`
    wants it.

    Raises:
        ImageError: an SVG that cannot be drawn (see `data_prep.svg`).
    """
    check_max_pixels(max_pixels)
    content = image
    if isinstance(image, Path):
        try:
            content = image.read_bytes()
        except OSError:  # who decodes it says what is wrong
            return image
    if not isinstance(content, bytes):
        return content
    return draw_svg(content, min(side, math.isqrt(max_pixels)), name) if is_svg(content) else content


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Let workers start without importing the caller's main script anew.

    A spawned process imports the parent's `__main__`. Where that is a script without `if __name__ == "__main__"`, it
    would start to prepare the same data and wait for its own parent's lock for ever. The workers need nothing of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; the parent alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _encoded_bytes(image: Any) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        return image.read_bytes()
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
