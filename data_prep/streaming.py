"""Streaming what does not fit a disk: Hub datasets and tar shards, decoded as they come, without preparation.

    stream = ExampleStream(find_adapter("hf:owner/name"), "train", image_size=64, rank=rank, world=world)
    for pixels, example in stream:              # endless, epoch after epoch
        ...
        position = stream.position()            # a few numbers; keep them with the checkpoint
    stream.seek(position)                       # goes on with the very next example

Every (rank, worker) pair reads its own part: whole shards where the adapter has shards, else every n-th example. Shards
are read in another order each epoch (by `seed`); inside a shard, and without shards, the order is the set's own.

What it does not give: random access, splits without leakage, deduplication, label fractions. `prepare` wherever the
disk allows.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.find import adapter_source, call_examples, named_errors
from mt2st.data.card import Adapter, Example
from mt2st.data.images import DEFAULT_MAX_PIXELS, ImageError, decode_image
from mt2st.errors import Mt2stError, check_range, unknown_name


@dataclass(frozen=True)
class _Position:
    """The next example to yield: its epoch, its place among this part's shards (0 without), its number there."""

    epoch: int = 0
    shard: int = 0
    sample: int = 0


class ExampleStream:
    """Decoded examples of one rank and worker, endlessly, with a position that can be kept and sought."""

    def __init__(
        self,
        adapter: Adapter,
        split: str,
        *,
        image_size: int,
        source: Path | None = None,
        options: Mapping[str, Any] | None = None,
        rank: int = 0,
        world: int = 1,
        worker: int = 0,
        workers: int = 1,
        seed: int = 0,
        fit: str = "squash",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        on_error: str = "fail",
    ) -> None:
        """Arguments as for `prepare`; `rank` of `world` processes, `worker` of `workers` data workers in each.

        Raises:
            Mt2stError: an unknown split, a rank or worker out of range, or fewer shards than parts.
        """
        if split not in adapter.CARD.splits:
            raise unknown_name(f"split of {adapter.CARD.name!r}", split, adapter.CARD.splits)
        if on_error not in ("fail", "skip"):
            raise unknown_name("on_error", on_error, ("fail", "skip"))
        check_range("rank", rank, 0, world - 1, "ranks count from 0")
        check_range("worker", worker, 0, workers - 1, "workers count from 0")
        self._adapter, self._split = adapter, split
        self._source = adapter_source(adapter, source)
        self._options = dict(options or {})
        self._image_size, self._fit, self._max_pixels, self._on_error = image_size, fit, max_pixels, on_error
        self._part, self._parts = rank * workers + worker, world * workers
        self._seed = seed
        self._next = _Position()
        self.skipped = 0
        if "streaming" in inspect.signature(adapter.examples).parameters:
            self._options.setdefault("streaming", True)
        self._shards = self._all_shards()
        if self._shards and len(self._shards) < self._parts:
            raise Mt2stError(
                f"{adapter.CARD.name}/{split} has {len(self._shards)} shards for {self._parts} readers (ranks × "
                "workers); "
                "use fewer workers, or write more shards"
            )

    def position(self) -> dict[str, int]:
        """Where the next example lies; a plain JSON value."""
        return {"epoch": self._next.epoch, "shard": self._next.shard, "sample": self._next.sample}

    def seek(self, position: Mapping[str, int]) -> None:
        """Go on from a `position()` of a stream with the same arguments.

        Examples before it in its shard are read, not decoded.
        """
        try:
            self._next = _Position(**{name: int(value) for name, value in position.items()})
        except (TypeError, ValueError):
            raise Mt2stError(f"{dict(position)!r} is no position of a stream; give what position() returned") from None

    def __iter__(self) -> Iterator[tuple[np.ndarray | None, Example]]:
        """(pixels uint8 [S, S, 3] or None for text-only examples, example), endlessly.

        Raises:
            Mt2stError: a bad image (unless skipped), or an epoch without a single example.
        """
        while True:
            yielded, start = False, self._next
            for pixels, example in self._epoch():
                yielded = True
                yield pixels, example
            if not yielded and start == _Position(start.epoch):
                raise Mt2stError(
                    f"{self._adapter.CARD.name}/{self._split} gave reader {self._part} of {self._parts} no example in "
                    "a whole epoch"
                )
            self._next = _Position(self._next.epoch + 1)

    def _epoch(self) -> Iterator[tuple[np.ndarray | None, Example]]:
        epoch = self._next.epoch
        sources = self._order(epoch)
        for shard in range(self._next.shard, len(sources)):
            first = self._next.sample
            for number, example in enumerate(self._examples(sources[shard])):
                if number < first:
                    continue
                self._next = _Position(epoch, shard, number + 1)
                try:
                    yield self._decode(example), example
                except ImageError as error:
                    if self._on_error == "fail":
                        raise Mt2stError(
                            f"{self._adapter.CARD.name}/{self._split} image {example.image_id!r}: {error}"
                        ) from None
                    self.skipped += 1
            self._next = _Position(epoch, shard + 1)

    def _order(self, epoch: int) -> Sequence[Path | None]:
        """This part's shards in the order of `epoch`; [None] stands for the set without shards."""
        if not self._shards:
            return [None]

        def key(shard: Path) -> bytes:
            return hashlib.sha256(f"{self._seed}:{epoch}:{shard.name}".encode()).digest()

        mine: list[Path] = sorted(self._shards[self._part :: self._parts], key=key)
        return mine

    def _examples(self, shard: Path | None) -> Iterator[Example]:
        if shard is not None:
            read: Callable[[Path], Iterator[Example]] = self._adapter.shard_examples  # type: ignore[attr-defined]
            yield from named_errors(self._adapter, f"{self._split}/{shard.name}", lambda: read(shard))
            return
        everything = call_examples(self._adapter, self._split, self._source, self._options, self._image_size)
        for number, example in enumerate(everything):
            if number % self._parts == self._part:
                yield example

    def _decode(self, example: Example) -> np.ndarray | None:
        if example.image is None:
            return None
        return decode_image(example.image, self._image_size, fit=self._fit, max_pixels=self._max_pixels)

    def _all_shards(self) -> tuple[Path, ...]:
        find = getattr(self._adapter, "shards", None)
        if find is None:
            return ()
        takes_source = "source" in inspect.signature(find).parameters
        return tuple(find(self._split, source=self._source) if takes_source else find(self._split))
