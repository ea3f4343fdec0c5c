"""A shard: a fixed number of rows, embedded by one process with the run's number of threads.

Which rows are in a shard, and in a batch, does not depend on the number of processes, so neither do the bits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.embeddings.folder import Kind, Unfinished
from benchmarks.embeddings.trained import trained_run
from mt2st.data.prepared import PreparedDataset, PreparedSplit
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError
from mt2st.predict import embed_images, embed_texts
from mt2st.processes import worker_number
from mt2st.threads import computing_threads

BATCH_ROWS = 256  # of one forward pass, as `embed_split` takes them
SHARD_ROWS = 8 * BATCH_ROWS
MAIN, ALL = "main", "all"  # which captions


@dataclass(frozen=True)
class Source:
    """What is embedded with what.

    Attributes:
        run_dir: the trained run.
        data: the prepared folder.
        content_hash: of the data.
        split: its split; items without a picture are left out.
        captions: "main" = each image's first, "all".
        threads: of every process.
        device: "cpu" or "cuda"; processes share the GPUs out among them.
    """

    run_dir: Path
    data: Path
    content_hash: str
    split: str
    captions: str
    threads: int
    device: str


@dataclass(frozen=True)
class Shard:
    """Rows `start` to `stop` of the images or texts; texts are `tokens` long."""

    source: Source
    kind: Kind
    start: int
    stop: int
    tokens: int
    out: Unfinished


class Contents:
    """The images and captions of a source, in the order in which they are embedded."""

    def __init__(self, source: Source) -> None:
        dataset = PreparedDataset.open(source.data)
        if dataset.content_hash != source.content_hash:
            raise Mt2stError(f"{source.data} was prepared anew with other content meanwhile; repeat the command")
        split = dataset.split(source.split)
        pictured = split.has_pixels()
        self.left_out = int((~pictured).sum())
        self.split: PreparedSplit = split if pictured.all() else split.subset(np.flatnonzero(pictured))
        owner = self.split.caption_images()
        main = source.captions == MAIN
        self.captions: NDArray[np.int64] = np.unique(owner, return_index=True)[1] if main else np.arange(len(owner))
        self.text_image: NDArray[np.int64] = owner[self.captions]

    def texts(self, start: int, stop: int) -> list[str]:
        """Captions `start` to `stop`."""
        return self.split.caption_texts(self.captions[start:stop])


def shards_of(source: Source, tokens: int, out: Unfinished) -> list[Shard]:
    """All shards, images first."""
    kinds: tuple[Kind, ...] = ("images", "texts")
    return [
        Shard(source, kind, start, min(start + SHARD_ROWS, out.rows[kind]), tokens, out)
        for kind in kinds
        for start in range(0, out.rows[kind], SHARD_ROWS)
    ]


def embed_shard(shard: Shard) -> float:
    """Embed a shard and put it in its place; returns the seconds that it took.

    Raises:
        Mt2stError: a picture cannot be read, an embedding is not finite, or the disk is full.
    """
    with computing_threads(shard.source.threads):
        encoder, contents = opened(shard.source)
        began = time.perf_counter()
        if shard.kind == "images":
            wanted = np.arange(shard.start, shard.stop)
            rows = embed_images(encoder, contents.split, wanted, batch_size=BATCH_ROWS)
        else:
            tokens = encoder.towers.tokenize(contents.texts(shard.start, shard.stop))[:, : shard.tokens]
            rows = embed_texts(encoder, tokens, batch_size=BATCH_ROWS)
        if (bad := np.flatnonzero(~np.isfinite(rows).all(1))).size:
            raise Mt2stError(
                f"{shard.source.run_dir} gives no finite embedding for row {shard.start + bad[0]} of the {shard.kind} "
                f"of {shard.source.split!r}; its training has diverged: take another run"
            )
        shard.out.put(shard.kind, shard.start, rows)
        return time.perf_counter() - began


def longest_text(encoder: VisionLanguageEncoder, contents: Contents) -> int:
    """Tokens of the longest caption, padding aside, at least 1."""
    longest = 1
    for start in range(0, len(contents.captions), SHARD_ROWS):
        used = (encoder.towers.tokenize(contents.texts(start, start + SHARD_ROWS)) != encoder.towers.pad_id).any(0)
        if used.any():
            longest = max(longest, int(used.nonzero().max()) + 1)
    return longest


@lru_cache(maxsize=1)
def opened(source: Source) -> tuple[VisionLanguageEncoder, Contents]:
    """Encoder and data of a source, kept for the next shard. Call within `computing_threads`."""
    device = source.device
    if device == "cuda":
        device = f"cuda:{worker_number() % torch.cuda.device_count()}"
    return trained_run(source.run_dir).encoder(device), Contents(source)
