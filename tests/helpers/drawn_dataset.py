"""A drawn VQA and caption set as an adapter file outside the repository's adapters: coloured squares and bars."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from mt2st.data.card import Answer, DatasetCard, Example

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "grey": (128, 128, 128)}
COUNTS = {"train": 60, "test": 20}
CARD = DatasetCard(
    name="drawn", title="Drawn", task="vqa", source="drawn by the tests", revision="1", licence="CC0-1.0",
    splits={split: 2 * count for split, count in COUNTS.items()}, main_metric="vqa_accuracy", protocol="official-2021",
)  # fmt: skip


def examples(split: str) -> Iterator[Example]:
    random = np.random.default_rng(sorted(COUNTS).index(split))
    names = list(COLOURS)
    for image in range(COUNTS[split]):
        colour, wide = names[image % 4], bool(image // 4 % 2)
        pixels = random.integers(0, 20, (16, 16, 3)).astype(np.uint8)
        pixels[2:10, 2 : 14 if wide else 10] = COLOURS[colour]
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        shape = "bar" if wide else "square"
        for number, (question, answer) in enumerate((("what colour is it?", colour), ("which shape is it?", shape))):
            yield Example(
                image=stream.getvalue(),
                image_id=f"{split}-{image}",
                captions=(f"a {colour} {shape}",) if number == 0 else (),
                question=question,
                question_id=f"{image}-{number}",
                answers=(Answer(answer),),
                question_type="colour" if number == 0 else "shape",
            )
