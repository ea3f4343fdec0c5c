"""`python -m benchmarks trained`: a trained model of the default VQA recipe as people use it, against four promises.

  load      `mt2st.load` in under 3 s after `import torch`, in a new process, torch's own import aside
  answer    one question about one picture file in under 30 ms on one core
  predict   answers a second at ≥ 80 % of the suite's own evaluation, which reads a prepared split; both on one core, in
            turn, from questions as texts. `answer_all` gets the pictures as arrays, as the split holds them; beside it
            stands what it does from picture files, which have to be decoded
  search    an answer in under 50 ms in a gallery of 8,000 pictures, once these are embedded; the query's embedding is
            part of it

The model is trained for a few steps only: its speed does not depend on its weights.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

import mt2st
from benchmarks.cases.vqa.case import VqaCase
from benchmarks.cases.vqa.knobs import RECIPES
from benchmarks.records.machine import environment
from benchmarks.speed.options import TrainedOptions
from mt2st.errors import Mt2stError
from mt2st.files import write_sealed_json
from mt2st.index import create_index
from mt2st.predict import predict_answers
from mt2st.trained.gallery import embed_gallery

LOAD_SECONDS, ANSWER_SECONDS, PREDICT_SHARE, SEARCH_SECONDS = 3.0, 0.030, 0.8, 0.050
_QUERIES = 200
_LOADING = (
    "import sys, time, torch\n"
    "began = time.perf_counter()\n"
    "import mt2st\n"
    "mt2st.load(sys.argv[1], device='cpu')\n"
    "print(time.perf_counter() - began)"
)


def measure(options: TrainedOptions) -> int:
    """Train briefly, measure, print and write the record; returns 0 if all promises hold, else 1."""
    console = Console()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with console.status("training a model for a few steps"):
            run = _trained(folder)
        with console.status("loading it in new processes"):
            load = sorted(_load_seconds(run) for _ in range(options.rounds))
        model = mt2st.load(run, device="cpu")
        knobs = replace(RECIPES["default"], data_folder=folder / "data")
        case = VqaCase(knobs, Console(quiet=True))
        files = _picture_files(case, folder / "pictures")
        with console.status("asking single questions"):
            answer = _answer_seconds(model, case, files)
        with console.status("predicting the test split"):
            predict = _predict_rates(model, case, files, options.rounds)
        with console.status(f"searching {options.gallery:,} pictures"):
            search = _search(model, folder, options.gallery)
    record = {
        **environment(),
        "options": {"rounds": options.rounds, "gallery": options.gallery},
        "load_seconds": load,
        "answer_seconds": answer,
        "predict": predict,
        "search": search,
    }
    path = options.results / "trained" / "trained.json"
    write_sealed_json(path, record)
    share = _middle(predict["share_from_arrays"])
    met = [
        _middle(load) < LOAD_SECONDS,
        _middle(answer) < ANSWER_SECONDS,
        share >= PREDICT_SHARE,
        _middle(search["seconds"]) < SEARCH_SECONDS,
    ]
    console.print(
        f"load: {_spread(load, 1, 's')} after import torch; promised < {LOAD_SECONDS:g} s\n"
        f"answer: {_spread(answer, 1000, 'ms')} for one picture file on one core; promised < 30 ms\n"
        f"predict: {_middle(predict['array_answers_per_second']):,.0f} answers/s = {share:.0%} of the suite's own "
        f"{_middle(predict['suite_answers_per_second']):,.0f} (median of {options.rounds} pairs; from files "
        f"{_middle(predict['share_from_files']):.0%}); promised ≥ 80 %\n"
        f"search: {_spread(search['seconds'], 1000, 'ms')} in {options.gallery:,} pictures, which took "
        f"{search['embed_seconds']:.1f} s to embed; promised < 50 ms\nrecord: {path}",
        highlight=False,
    )
    return 0 if all(met) else 1


def _trained(folder: Path) -> Path:
    """A finished run of the default recipe, of few steps."""
    command = [sys.executable, "-m", "benchmarks", "vqa", "--steps", "12", "--seeds", "1", "--validations", "1"]
    command += ["--strategies", "MTL", "--views", "equal-steps", "--jobs", "1"]
    command += ["--results", str(folder / "results"), "--data-folder", str(folder / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted((folder / "results" / "vqa" / "default").glob("mtl-*/model.json"))
    if done.returncode or not found:
        raise Mt2stError(f"no model was trained: {' '.join(done.stderr.split())[-300:]}")
    return found[0].parent


def _load_seconds(run: Path) -> float:
    command = [sys.executable, "-c", _LOADING, str(run)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _picture_files(case: VqaCase, folder: Path) -> list[Path]:
    """The test pictures as PNG files, in the split's order."""
    folder.mkdir()
    paths = []
    for place, pixels in enumerate(case.test_split.pixels(np.arange(case.test_split.num_images))):
        paths.append(folder / f"{place}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def _answer_seconds(model: Any, case: VqaCase, files: list[Path]) -> list[float]:
    """Seconds of each of some questions, sorted; the first one, which warms up, is left out."""
    split = case.test_split
    pairs = zip(split.question_images().tolist(), split.question_texts())
    asked = [(files[image], text) for (image, text), _ in zip(pairs, range(_QUERIES + 1))]
    seconds = [_seconds(partial(model.answer, path, text, top=5))[0] for path, text in asked]
    return sorted(seconds[1:])


def _predict_rates(model: Any, case: VqaCase, files: list[Path], rounds: int) -> dict[str, list[float]]:
    """Answers a second of the suite's evaluation and of `answer_all`, in turn; the first round warms up."""
    split, experiment = case.test_split, case.build(0)
    texts, about = split.question_texts(), split.question_images()
    towers: Any = experiment.encoder.towers
    arrays = list(split.pixels(np.arange(split.num_images)))

    def suite() -> object:
        return predict_answers(experiment.encoder, experiment.primary, split, towers.tokenize(texts))

    ways: dict[str, Callable[[], object]] = {
        "suite": suite,
        "array": lambda: model.answer_all(arrays, texts, question_image=about),
        "file": lambda: model.answer_all(files, texts, question_image=about),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            seconds = _seconds(way)[0]
            if turn:
                rates[name].append(len(texts) / seconds)
    shares = {
        f"share_from_{name}s": sorted(ours / theirs for ours, theirs in zip(rates[name], rates["suite"], strict=True))
        for name in ("array", "file")
    }
    return {**{f"{name}_answers_per_second": sorted(found) for name, found in rates.items()}, **shares}


def _search(model: Any, folder: Path, count: int) -> dict[str, Any]:
    """Seconds to embed a gallery of drawn pictures, and seconds of each query in it, sorted."""
    gallery = folder / "gallery"
    gallery.mkdir()
    random = np.random.default_rng(0)
    for place in range(count):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(gallery / f"{place}.png", compress_level=1)
    embed_seconds, found = _seconds(lambda: embed_gallery(model, gallery, folder / "cache"))
    index = create_index("exact")
    index.add(found.embeddings)
    texts = [f"a picture of {place} red circles" for place in range(_QUERIES + 1)]

    def answered(text: str) -> object:
        return index.search(model.embed_texts([text]), 10)

    seconds = [_seconds(partial(answered, text))[0] for text in texts]
    return {"pictures": count, "embed_seconds": embed_seconds, "seconds": sorted(seconds[1:])}


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _spread(values: list[float], unit: float, name: str) -> str:
    """Median and 95th percentile of sorted values."""
    high = values[int(0.95 * (len(values) - 1))]
    return f"{_middle(values) * unit:.3g} {name} (95 % under {high * unit:.3g} {name})"
