"""Decoding images for `prepare`: in this process while little is to do, in worker processes once it pays."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.store import StoredImage
from mt2st.errors import Mt2stError, check_range
from mt2st.pixels import ImageError, decode_image, fit_image, load_rgb

# Starting processes costs about a second, so small sets are decoded here.
_SERIAL_SECONDS = 2.0


@dataclass(frozen=True)
class DecodeJob:
    """An image to decode; `image` is a path, encoded bytes or a PIL image, `name` says in errors which one it is."""

    key: bytes
    image: Any
    name: str


@dataclass(frozen=True)
class _Plan:
    size: int
    fit: str
    max_pixels: int
    keep_encoded: bool


class DecodeTask:
    """A chunk of images, decoded or being decoded."""

    def __init__(self, found: dict[bytes, StoredImage] | Future[dict[bytes, StoredImage]]) -> None:
        self._found = found

    def result(self) -> dict[bytes, StoredImage]:
        """What decoding gave for each key; waits for it."""
        if isinstance(self._found, dict):
            return self._found
        try:
            return self._found.result()
        except BrokenProcessPool:
            raise Mt2stError(
                "a decoding process was killed, most likely for memory; run the command again with fewer --workers"
            ) from None


class DecodePool:
    """Decodes chunks of images. `depth` chunks may be under way at once, which bounds memory."""

    def __init__(self, size: int, fit: str, max_pixels: int, keep_encoded: bool, workers: int | None) -> None:
        """`workers`: None = all cores, once decoding has taken 2 seconds here; 0 = in this process only."""
        if workers is not None:
            check_range("workers", workers, 0, 1024, "give the number of decoding processes")
        self._plan = _Plan(size, fit, max_pixels, keep_encoded)
        self._workers = workers
        self._seconds = 0.0
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            self._start(workers)

    @property
    def depth(self) -> int:
        """How many chunks may wait for their turn."""
        return 0 if self._pool is None else 2 * (self._workers or 1) + 1

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, jobs: Sequence[DecodeJob]) -> DecodeTask:
        """Decode `jobs`, here or in a worker."""
        if not jobs:
            return DecodeTask({})
        if self._workers is None and self._seconds > _SERIAL_SECONDS and (cores := _cores()) > 1:
            self._workers = cores
            self._start(cores)
        # PIL images do not travel well between processes, and are decoded already.
        if self._pool is not None and all(isinstance(job.image, Path | bytes) for job in jobs):
            try:
                return DecodeTask(self._pool.submit(_decode_chunk, list(jobs), self._plan))
            except BrokenProcessPool:
                raise Mt2stError(
                    "a decoding process was killed, most likely for memory; run the same command again with fewer --workers"
                ) from None
        started = time.perf_counter()
        found = _decode_chunk(jobs, self._plan)
        self._seconds += time.perf_counter() - started
        return DecodeTask(found)

    def _start(self, workers: int) -> None:
        # "spawn": forking a process that already runs threads (Arrow's, torch's) can deadlock.
        self._pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _decode_chunk(jobs: Sequence[DecodeJob], plan: _Plan) -> dict[bytes, StoredImage]:
    return {job.key: _decode_one(job, plan) for job in jobs}


def _decode_one(job: DecodeJob, plan: _Plan) -> StoredImage:
    name = f"{job.name} ({job.image})" if isinstance(job.image, Path) else job.name
    try:
        if not plan.keep_encoded:
            pixels = decode_image(job.image, plan.size, fit=plan.fit, max_pixels=plan.max_pixels, name=name).tobytes()
            sha = hashlib.sha256(pixels).digest()
            return StoredImage(pixels, sha, sha, len(pixels))
        rgb = load_rgb(job.image, max_pixels=plan.max_pixels, name=name)
        encoded = _encoded_bytes(job.image)
    except ImageError as error:
        return StoredImage(error=str(error), missing=error.missing)
    pixels = fit_image(rgb, plan.size, plan.fit).tobytes()
    return StoredImage(encoded, hashlib.sha256(pixels).digest(), hashlib.sha256(encoded).digest(), len(encoded))


def _encoded_bytes(image: Any) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        return image.read_bytes()
    import io

    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
