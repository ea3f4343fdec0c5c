"""Drawn photos with captions, for measurements that read image files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_WORDS = ("red", "green", "dog", "house", "tree", "boat", "sky", "small", "old", "near", "two", "under", "street")


def make_photos(folder: str, images: int, width: int = 640, height: int = 480) -> dict[str, Any]:
    """`images` JPEG files with a caption each that no other has, as an image folder and as a table for open_clip."""
    place = Path(folder) / "set" / "train"
    place.mkdir(parents=True)
    rows, table = [], ["filepath\ttitle"]
    seen: set[str] = set()
    for number in range(images):
        random = np.random.default_rng(number)
        smooth = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        name = f"{number:06d}.jpg"
        smooth.resize((width, height), Image.Resampling.BICUBIC).save(place / name, quality=90)
        caption = ""
        while not caption or caption in seen:
            caption = " ".join(random.choice(_WORDS, 4 + int(random.integers(12))))
        seen.add(caption)
        rows.append(json.dumps({"file_name": name, "captions": [caption]}))
        table.append(f"{place / name}\t{caption}")
    (place / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    (Path(folder) / "photos.tsv").write_text("\n".join(table) + "\n")
    return {"images": images}
