"""Reading batches from the store, beside what training consumes and beside a DataLoader over image files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.speed.decoding import decoded
from benchmarks.speed.loop import Loop
from data_prep.adapters import easy_vqa
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import pixels_tensor


class FileImages:
    """Map-style data set over image files, as one writes it without a store: decode, resize, to tensor."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = list(paths), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: int) -> Tensor:
        return torch.from_numpy(decoded(self.paths[at], self.size).copy()).permute(2, 0, 1)


def measure_reading(split: PreparedSplit, loop: Loop, batch_size: int, workers: int) -> dict[str, Any]:
    """Images a second of easy-VQA: from the store, by a DataLoader over its PNG files, and as training takes them.

    Args:
        split: prepared images.
        loop: the training that takes them.
        batch_size: images a batch.
        workers: processes of the DataLoader.
    """
    order = np.random.default_rng(0).permutation(split.num_images)
    batches = [order[at : at + batch_size] for at in range(0, len(order) - batch_size + 1, batch_size)]
    for rows in batches:  # touches every page once, as the first epoch does
        pixels_tensor(split, rows)
    passes, started = 5, time.perf_counter()
    for _ in range(passes):
        for rows in batches:
            pixels_tensor(split, rows)
    store = passes * len(batches) * batch_size / (time.perf_counter() - started)
    files = sorted((easy_vqa.default_source() / "train" / "images").glob("*.png"))
    data: Any = FileImages(files, split.image_size)
    loader = DataLoader(
        data, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True
    )
    for _ in loader:  # starts the workers
        pass
    started = time.perf_counter()
    seen = sum(len(images) for images in loader)
    loaded = seen / (time.perf_counter() - started)
    loop.block(5)
    trained = sorted(loop.block(10).samples_per_second for _ in range(5))[2]
    return {
        "image_size": split.image_size,
        "batch_size": batch_size,
        "store_images_per_second": store,
        "data_loader_images_per_second": loaded,
        "data_loader_workers": workers,
        "trainer_images_per_second": trained,
        "trainer_threads": torch.get_num_threads(),
        "ratio_to_trainer": store / trained,
        "ratio_to_data_loader": store / loaded,
    }
