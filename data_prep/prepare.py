"""`prepare`: from an adapter to a published folder of `mt2st.data.splits`, decoding each image once.

The result's name carries a key of everything it depends on (card, sizes, options, adapter file, source's files), so
that calling `prepare` again with the same arguments returns at once, and with others never overwrites. Two processes
preparing one set: one works, the other waits for it.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data_prep.call import adapter_fingerprint, adapter_source, call_examples, left_out, source_fingerprint
from data_prep.decode import ImageJob, ImagePool, ImageTask, decode_pool
from data_prep.find import checked_adapter, find_adapter
from data_prep.store import StoredImage, StoreWriter, item_key, partial_folder
from mt2st.data.card import Adapter, DatasetCard, Example
from mt2st.data.images import DEFAULT_MAX_PIXELS, check_max_pixels, checked_fit
from mt2st.data.manifest import FORMAT_VERSION
from mt2st.data.prepared import PreparedDataset
from mt2st.errors import Mt2stError, check_range, unknown_name
from mt2st.files import PARTIAL_SUFFIX, content_hash

DEFAULT_OUT = Path(__file__).resolve().parent.parent / "data"
STORES = ("auto", "pixels", "encoded")
# The rule of --store auto: pixels while the images of the card's declared examples fit into this, originals above.
AUTO_PIXELS_LIMIT_BYTES = 64 << 30
# One task of a decoding process: at most so many images, from at most so many examples.
_CHUNK_IMAGES = 32
_CHUNK_EXAMPLES = 512


@dataclass(frozen=True)
class Progress:
    """How far `prepare` is: examples done in this split, how many the card declares (None: unknown), seconds spent on
    it.
    """

    split: str
    examples: int
    declared: int | None
    seconds: float


@dataclass(frozen=True)
class _Settings:
    image_size: int
    store: str
    fit: str
    on_error: str
    max_pixels: int
    splits: tuple[str, ...]
    options: dict[str, Any]


def prepare(
    adapter: str | Path | Adapter,
    *,
    out: Path | str = DEFAULT_OUT,
    image_size: int = 64,
    source: Path | str | None = None,
    mapping: Mapping[str, str] | None = None,
    splits: Sequence[str] | None = None,
    options: dict[str, Any] | None = None,
    store: str = "auto",
    fit: str = "squash",
    on_error: str = "fail",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Decode a dataset into a memory-mapped folder, once.

    Args:
        adapter: a name, path or module path (see `find_adapter`), or an adapter itself.
        out: where prepared folders lie; the result is `out/<name>-<image_size>px-<key>`.
        image_size: side of the stored square images, in pixels.
        source: the folder (or file) the adapter reads; None for adapters that bring their data.
        mapping: our fields → the set's columns, for tables, image folders, tar shards and Hub datasets.
        splits: which of the card's splits; None prepares all.
        options: further keyword arguments of the adapter's `examples`.
        store: "pixels" keeps decoded squares, fastest to read, 3 · image_size² bytes an image; "encoded" keeps the
            original bytes, decoded at every read; "auto" takes pixels unless the card's declared examples would need
            more than 64 GiB so.
        fit: how an image becomes square: "squash", "crop", "pad", or in a checkpoint's own way (see
            `mt2st.data.images.checked_fit`).
        on_error: "fail" stops at the first bad image; "skip" leaves out bad images with their texts and counts them.
        max_pixels: largest width × height that is decoded; at most 10⁹. Above the default with store="pixels" alone:
            stored originals are decoded again at every read, under the default limit.
        workers: decoding processes; None = all cores, once decoding has taken 2 seconds in this process; 0 = here only.
        progress: called every few hundred examples.

    Returns:
        The published folder. It exists whole or not at all; an interrupted preparation continues where it stopped.

    Raises:
        Mt2stError: bad arguments or data; the message names the value, the place and the cure.
    """
    loaded = (
        checked_adapter(adapter, repr(adapter))
        if not isinstance(adapter, str | Path)
        else find_adapter(adapter, mapping)
    )
    card = loaded.CARD
    folder = adapter_source(loaded, Path(source) if source is not None else None)
    settings = _checked_settings(card, image_size, store, fit, on_error, max_pixels, splits, options or {})
    key = content_hash(
        [
            FORMAT_VERSION,
            _card_json(card),
            {**asdict(settings)},
            adapter_fingerprint(loaded),
            source_fingerprint(folder),
        ],
    )
    result = Path(out) / f"{card.name}-{image_size}px-{key[:12]}"
    if _is_published(result):
        return result
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
        with _lock(result):
            if not _is_published(result):
                keep_encoded = settings.store == "encoded"
                with decode_pool(settings.image_size, settings.fit, settings.max_pixels, keep_encoded, workers) as pool:
                    _build(result, loaded, folder, settings, pool, progress)
                _remove_stale(result, card, image_size)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        named = getattr(error, "filename", None) or partial_folder(result)
        cure = (
            "restore it, or check --source and --out"
            if isinstance(error, FileNotFoundError)
            else "free space or mend permissions"
        )
        raise Mt2stError(
            f"preparing {card.name!r} failed at {named}: {reason}; {cure}, and run the same command again: it "
            "continues from there"
        ) from error
    return result


def _checked_settings(
    card: DatasetCard,
    image_size: int,
    store: str,
    fit: str,
    on_error: str,
    max_pixels: int,
    splits: Sequence[str] | None,
    options: dict[str, Any],
) -> _Settings:
    check_range("image_size", image_size, 1, 16384, "give the side of the stored square in pixels")
    check_max_pixels(max_pixels)
    checked_fit(fit)
    for what, value, known in (("store", store, STORES), ("on_error", on_error, ("fail", "skip"))):
        if value not in known:
            raise unknown_name(what, value, known)
    for name, value in options.items():
        if not isinstance(value, str | int | float | bool):
            raise Mt2stError(f"option {name!r} of {card.name!r} is {value!r}; options are texts, numbers or True/False")
    chosen = tuple(card.splits) if splits is None else tuple(dict.fromkeys(splits))
    for split in chosen:
        if split not in card.splits:
            raise unknown_name(f"split of {card.name!r}", split, card.splits)
    if not chosen:
        raise Mt2stError(f"no split of {card.name!r} was asked for; name one of {', '.join(card.splits)}")
    if store == "auto":
        declared = sum(card.splits[split] or 0 for split in chosen)
        store = "pixels" if declared * 3 * image_size**2 <= AUTO_PIXELS_LIMIT_BYTES else "encoded"
    if store == "encoded" and max_pixels > DEFAULT_MAX_PIXELS:
        raise Mt2stError(
            f"max_pixels = {max_pixels} is above {DEFAULT_MAX_PIXELS}, the limit under which stored originals are "
            "read; give --store pixels"
        )
    return _Settings(image_size, store, fit, on_error, max_pixels, chosen, options)


def _build(
    result: Path,
    adapter: Adapter,
    source: Path | None,
    settings: _Settings,
    pool: ImagePool[StoredImage],
    progress: Callable[[Progress], None] | None,
) -> None:
    started = time.monotonic()
    writer = StoreWriter(result)
    counts: dict[str, dict[str, int]] = {}
    try:
        for split in settings.splits:
            counts[split] = _build_split(split, writer, adapter, source, settings, pool, progress)
    except BaseException:
        writer.close()
        raise
    facts = {
        "revision": adapter.CARD.revision,
        "image_size": settings.image_size,
        "store": settings.store,
        "fit": settings.fit,
        "on_error": settings.on_error,
        "options": {name: str(value) for name, value in settings.options.items()},
        "counts": counts,
        "left_out": left_out(adapter, source, settings.splits),
        "prepare_seconds": round(time.monotonic() - started, 3),
        "reused_images": writer.reused_images,
    }
    writer.publish(adapter.CARD, facts)


def _build_split(
    split: str,
    writer: StoreWriter,
    adapter: Adapter,
    source: Path | None,
    settings: _Settings,
    pool: ImagePool[StoredImage],
    progress: Callable[[Progress], None] | None,
) -> dict[str, int]:
    card = adapter.CARD
    writer.start_split(split)
    started = time.monotonic()
    done = skipped = skipped_images = 0
    reason = ""
    stream = call_examples(adapter, split, source, settings.options, settings.image_size)
    for chunk in _decoded(stream, split, card.name, writer, pool):
        for example, key in chunk.examples:
            image = chunk.images.get(key)
            if image is not None and image.error and writer.known(key) is None:
                if settings.on_error == "fail":
                    again = call_examples(adapter, split, source, settings.options, settings.image_size)
                    raise Mt2stError(_missing(again, split, card.name) if image.missing else image.error)
                reason = image.error
                skipped_images += 1
            try:
                skipped += not writer.add(split, key, example, image)
            except (UnicodeEncodeError, TypeError, ValueError) as error:
                if isinstance(error, Mt2stError):
                    raise
                place = f"{card.name}/{split} image {example.image_id!r}"
                raise Mt2stError(
                    f"{place}: its texts or extra values cannot be stored ({error}); mend the annotation"
                ) from None
            done += 1
        if progress:
            progress(Progress(split, done, card.splits[split], time.monotonic() - started))
    counts = writer.end_split(split)
    if not done:
        raise Mt2stError(f"split {split!r} of {card.name!r} is empty: the adapter yielded no example; check --source")
    if not counts["images"]:
        raise Mt2stError(
            f"split {split!r} of {card.name!r}: all {skipped} examples were skipped, the last because: {reason}"
        )
    return {"examples": done, "skipped_examples": skipped, "skipped_images": skipped_images, **counts}


@dataclass
class _Chunk:
    """Examples in order with their image keys, and what decoding gave for the images that are new."""

    examples: list[tuple[Example, bytes]]
    images: dict[bytes, StoredImage]


def _decoded(
    stream: Iterator[Example], split: str, name: str, writer: StoreWriter, pool: ImagePool[StoredImage]
) -> Iterator[_Chunk]:
    """Chunks of examples with their new images decoded, in order; decoding runs ahead by a bounded number of chunks."""
    ahead: deque[tuple[_Chunk, ImageTask[StoredImage]]] = deque()
    in_flight: set[bytes] = set()

    def finish() -> Iterator[_Chunk]:
        chunk, task = ahead.popleft()
        chunk.images.update(task.result())
        yield chunk
        in_flight.difference_update(key for _, key in chunk.examples)

    numbered = enumerate(stream)
    while True:
        chunk, jobs = _Chunk([], {}), []
        for number, example in islice(numbered, _CHUNK_EXAMPLES):
            if not isinstance(example, Example):
                raise Mt2stError(
                    f"adapter {name!r}, split {split!r}: item {number} is {type(example).__name__}, not Example"
                )
            if not example.image_id:
                example = replace(example, image_id=f"item-{number}")
            key = item_key(split, example.image_id)
            chunk.examples.append((example, key))
            if example.image is None or key in in_flight or writer.known(key) is not None:
                continue
            in_flight.add(key)
            if found := writer.reusable(key):
                chunk.images[key] = found
            else:
                jobs.append(ImageJob(key, example.image, f"{name}/{split} image {example.image_id!r}"))
            if len(jobs) == _CHUNK_IMAGES:
                break
        if not chunk.examples:
            break
        ahead.append((chunk, pool.submit(jobs)))
        while len(ahead) > pool.depth:
            yield from finish()
    while ahead:
        yield from finish()


def _missing(examples: Iterator[Example], split: str, name: str) -> str:
    """The error for images that are not on disk: their number, and the first few names."""
    first: list[str] = []
    seen: set[str] = set()
    for example in examples:
        if isinstance(example.image, Path) and example.image_id not in seen and not example.image.exists():
            seen.add(example.image_id)
            first = [*first, str(example.image)][:5]
    return (
        f"split {split!r} of {name!r}: {len(seen)} images are missing from disk (first: {', '.join(first)}); "
        "complete the source folder, or leave them out with --on-error skip"
    )


def _card_json(card: DatasetCard) -> dict[str, Any]:
    return {**asdict(card), "splits": dict(card.splits)}


def _is_published(result: Path) -> bool:
    """Whether a whole prepared folder lies there; a damaged one counts as none and is rebuilt."""
    if not result.exists():
        return False
    try:
        PreparedDataset.open(result)
    except Mt2stError as error:
        print(f"{error}\nPreparing it anew.", file=sys.stderr)
        return False
    return True


@contextmanager
def _lock(result: Path) -> Iterator[None]:
    """One process a result. The system drops the lock with its owner, so a killed owner blocks nobody."""
    lock = _file_lock(result.with_name(f".{result.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"another process is preparing {result}; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _file_lock(path: Path) -> FileLock:
    # Never the fallback of `filelock`, a file whose presence is the lock: it would outlive a killed owner.
    return FileLock(path, fallback_to_soft=False)


def _remove_stale(result: Path, card: DatasetCard, image_size: int) -> None:
    """Remove partial folders that older states of this set left behind, unless some process works on them."""
    for folder in result.parent.glob(f".{card.name}-{image_size}px-*{PARTIAL_SUFFIX}"):
        lock = folder.with_name(f"{folder.name.removesuffix(PARTIAL_SUFFIX)}.lock")
        if lock.exists():
            with suppress(Timeout), _file_lock(lock).acquire(blocking=False):
                shutil.rmtree(folder)
