"""Runs as `python -m benchmarks demo` shows them: random weights, and examples with pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.records.examples import Example, Examples, write_examples
from tests.helpers.trained_folder import ANSWERS, QUESTIONS, write_run

HOSTILE = "<img src=x onerror=\"document.title='run'\">${document.title='run'}`{{x}}"


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def colour(red: int, green: int, blue: int, size: tuple[int, int] = (40, 24)) -> Image.Image:
    """A picture of one colour with a dark corner."""
    pixels = np.full((size[1], size[0], 3), (red, green, blue), np.uint8)
    pixels[:6, :6] = 20
    return Image.fromarray(pixels)


def examples(given: str) -> Examples:
    """Four questions, one of them with hostile text; the run answered `given` to all."""
    colours = [(220, 30, 30), (30, 30, 220), (30, 160, 60), (230, 200, 40)]
    pictures = {str(place): png(colour(*each)) for place, each in enumerate(colours)}
    questions = [QUESTIONS[0], QUESTIONS[1], HOSTILE, QUESTIONS[0]]
    items = tuple(
        Example(
            item=place, question=question, right=("red",), given=given, score=float(given == "red"), confidence=0.61,
            kind="colour", pictures=(str(place),),
        )
        for place, question in enumerate(questions)
    )  # fmt: skip
    return Examples(items, pictures, kinds="question type")


def write_shown_run(folder: Path, strategy: str, given: str, answers: tuple[str, ...] = ANSWERS) -> Path:
    """The folder of a run of `strategy` that the demo can show; without answers, of a run of retrieval."""
    benchmark = "vqa" if answers else "retrieval"
    about = {
        "run_id": f"{strategy.lower()}-s0", "benchmark": benchmark, "strategy": strategy, "seed": 0,
        "data": {"name": "drawn"}, "test": {"vqa_accuracy": 0.5}, "training_flops": 2e12,
    }  # fmt: skip
    run = write_run(folder, answers, about=about)
    write_examples(run, examples(given))
    return run
