"""Embeddings of pictures and texts by a model of two towers, timed, with their forward FLOPs.

Pictures are decoded in threads while the model works on the batch before. Equal texts are encoded once, and texts of
similar length go together, cut to the longest of their batch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.evaluate.measured import Cost
from benchmarks.evaluate.model import DualModel
from benchmarks.evaluate.options import Options
from mt2st.batch import Batch
from mt2st.data.prepared import PreparedSplit
from mt2st.flops import count_flops
from mt2st.training.prefetch import Prefetched

Floats = NDArray[np.float32]


class _Pictures:
    """Batches of transformed pictures; a batch depends on its number alone."""

    def __init__(self, model: DualModel, split: PreparedSplit, batch_size: int) -> None:
        self.model, self.split, self.batch_size = model, split, batch_size

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        start = min(index * self.batch_size, self.split.num_images)
        rows = np.arange(start, min(start + self.batch_size, self.split.num_images))
        pictures = self.split.pictures(rows)
        return {"pixels": torch.stack([self.model.transform(one) for one in pictures])} if pictures else {}


class Embedder:
    """Embeds pictures and texts with one model.

    Attributes:
        model: the model.
        costs: "images" and "texts" → what encoding took so far; a text counts once in a call, however often it stands.
    """

    def __init__(self, model: DualModel, options: Options) -> None:
        self.model = model
        self.costs: dict[str, Cost] = {}
        self._batch_size, self._workers = options.batch_size, options.workers
        self._known: dict[int, tuple[PreparedSplit, Floats]] = {}

    def pictures(self, split: PreparedSplit) -> Floats:
        """Unit embeddings [N, E] of all images of `split`; encoded when first asked for."""
        if id(split) not in self._known:
            self._known[id(split)] = split, self._pictures(split)
        return self._known[id(split)][1]

    def _pictures(self, split: PreparedSplit) -> Floats:
        source = _Pictures(self.model, split, self._batch_size)
        first = _Pictures(self.model, split, 1).batch(0)["pixels"]
        flops = count_flops(lambda: self.model.encode_images(first))  # also warms up
        batches = Prefetched(source, self._workers) if self._workers else source
        found = []
        started = time.perf_counter()
        for index in range(-(-split.num_images // self._batch_size)):
            found.append(self.model.encode_images(batches.batch(index)["pixels"]).cpu().numpy())
        seconds = time.perf_counter() - started
        self._cost("images").add(split.num_images, seconds, flops * split.num_images)
        return np.concatenate(found)

    def texts(self, texts: Sequence[str]) -> Floats:
        """Unit embeddings [C, E] of `texts`."""
        towers = self.model.towers
        distinct, place = np.unique(np.array(texts, dtype=np.str_), return_inverse=True)
        started = time.perf_counter()
        tokens: Tensor = towers.tokenize([str(text) for text in distinct])
        real = tokens != towers.pad_id
        lengths = torch.where(real.any(1), real.shape[1] - real.flip(1).int().argmax(1), 1).numpy()
        order = np.argsort(lengths, kind="stable")
        found = np.zeros((len(distinct), towers.embedding_width), dtype=np.float32)
        shapes: Counter[int] = Counter()
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            length = int(lengths[rows[-1]])
            shapes[length] += len(rows)
            found[rows] = self.model.encode_texts(tokens[torch.from_numpy(rows), :length]).cpu().numpy()
        seconds = time.perf_counter() - started
        flops = sum(count * self._text_flops(tokens[:1, :length]) for length, count in shapes.items())
        self._cost("texts").add(len(distinct), seconds, flops)
        return found[place]

    def _text_flops(self, tokens: Tensor) -> int:
        return count_flops(lambda: self.model.encode_texts(tokens))

    def _cost(self, kind: str) -> Cost:
        return self.costs.setdefault(kind, Cost())
