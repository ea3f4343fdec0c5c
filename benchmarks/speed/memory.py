"""The memory of preparing many images, each time in a fresh process: `python -m benchmarks.speed.memory COUNT OUT`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.records.machine import peak_resident_bytes
from data_prep.prepare import prepare
from mt2st.data.card import Answer, DatasetCard, Example
from mt2st.errors import Mt2stError

_PICTURES = 64


class Many:
    """Adapter of `count` small PNG images made in memory, each with a caption and a question."""

    CARD = DatasetCard("many", "Many", "vqa", "made here", "1", "CC0-1.0", {"train": None}, "vqa_accuracy")

    def __init__(self, count: int) -> None:
        self.count = count

    def examples(self, split: str) -> Iterator[Example]:
        """The images, a few pictures in turn."""
        pictures = []
        for value in range(_PICTURES):
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (4 * value, 2, 3)).save(stream, "PNG")
            pictures.append(stream.getvalue())
        for number in range(self.count):
            yield Example(
                image=pictures[number % _PICTURES],
                image_id=str(number),
                captions=(f"a caption of image {number}",),
                question="what is it?",
                question_id=str(number),
                answers=(Answer("x"),),
            )


def measure_memory(folder: Path, images: int) -> dict[str, Any]:
    """Peak resident MB of a fresh process that prepares so many images, and a hundredth of them.

    Raises:
        Mt2stError: a process failed; its last line of complaint is in the message.
    """
    counts = [images // 100, images]
    found = []
    for count in counts:
        command = [sys.executable, "-m", "benchmarks.speed.memory", str(count), str(folder / f"memory{count}")]
        repository = Path(__file__).resolve().parents[2]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repository)
        if done.returncode:
            raise Mt2stError(
                f"the memory measurement of {count} images failed: {done.stderr.strip().splitlines()[-1:]}"
            )
        found.append(json.loads(done.stdout))
    return {"images": counts} | {name: [values[name] for values in found] for name in ("peak_mb", "seconds")}


if __name__ == "__main__":
    started = time.perf_counter()
    prepare(Many(int(sys.argv[1])), out=Path(sys.argv[2]), image_size=32, workers=0)
    measured = {"peak_mb": peak_resident_bytes() / 2**20, "seconds": time.perf_counter() - started}
    sys.stdout.write(json.dumps(measured) + "\n")
