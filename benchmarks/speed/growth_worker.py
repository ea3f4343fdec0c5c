"""One point of a curve of `python -m benchmarks growth`, in a process of its own.

    python -m benchmarks.speed.growth_worker TASK ARGUMENTS

ARGUMENTS is a JSON object. Prints one JSON object as its last line: work, seconds, processor seconds, peak bytes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.nn import functional

from benchmarks.cases import AUXILIARY, PRIMARY
from benchmarks.records.folder import RunFolder
from benchmarks.records.machine import peak_resident_bytes, reset_peak_resident
from benchmarks.report.spec import ReportSpec, accuracy
from benchmarks.report.write import report as write_report
from benchmarks.speed.loop import HeldBatch
from benchmarks.speed.memory import Many
from benchmarks.strategies import strategy_names
from data_prep.prepare import prepare as prepare_data
from mt2st.encoders.open_clip_towers import SmallConfig, small_towers
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.masked_lm import MaskedLanguageObjective
from mt2st.objectives.vqa import AnswerObjective
from mt2st.schedules import Constant
from mt2st.threads import computing_threads
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer

_STRATEGIES = strategy_names()[:5]
_ITEMS = 400  # test items of a run of the report


def step(
    images: int = 32, image_size: int = 32, answers: int = 13, auxiliaries: int = 1, threads: int = 1
) -> dict[str, float]:
    """A VQA step with `auxiliaries` masked language models; images of both streams are as many."""
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(["a red square", "a green circle is here", "what is it?"], 300)
    towers = small_towers(SmallConfig(image_size=image_size), tokenizer)
    encoder = VisionLanguageEncoder(towers, fusion_layers=0)
    others = [
        MaskedLanguageObjective(encoder.fusion.width, towers.vocabulary_size, towers.mask_id, name=f"masked_lm{number}")
        for number in range(auxiliaries)
    ]
    mixture = MT2ST(
        Task(AnswerObjective(encoder.fusion.width, answers), stream=PRIMARY),
        [Task(objective, Constant(), stream=AUXILIARY) for objective in others],
    )
    pixels = torch.randint(0, 256, (images, 3, image_size, image_size), dtype=torch.uint8)
    tokens = towers.tokenize(["a red square"] * images)
    rows = torch.arange(images)
    targets = functional.one_hot(rows % answers, answers).float()
    streams = {
        PRIMARY: HeldBatch(
            {"pixels": pixels, "question_tokens": tokens, "question_image": rows, "answer_targets": targets}
        ),
        AUXILIARY: HeldBatch({"pixels": pixels, "caption_tokens": tokens, "caption_group": rows}),
    }
    trainer = Trainer(encoder, mixture, streams, TrainConfig(10**6, log_every_steps=10**6))
    for index in range(3):
        trainer.train_step(index)
    reset_peak_resident()
    steps = max(2, min(20, 1024 // images))
    found = _measured(lambda: [trainer.train_step(3 + index) for index in range(steps)], steps)
    return {"work": trainer.ledger.total / (3 + steps), **found}


def report(runs: int, threads: int = 1) -> dict[str, float]:
    """The report of `runs` made-up runs of five strategies, from their folders to the files."""
    spec = ReportSpec(title="Made up", primary=accuracy("accuracy", "accuracy"))
    with tempfile.TemporaryDirectory(prefix="growth-") as place:
        for number in range(runs):
            _made_up(Path(place), _STRATEGIES[number % 5], number // 5)
        console = Console(file=StringIO())
        reset_peak_resident()
        found = _measured(
            lambda: write_report("demo", "default", Path(place), spec=spec, known=strategy_names(), console=console), 1
        )
    return {"work": float(runs), **found}


def prepare(images: int, threads: int = 1) -> dict[str, float]:
    """Preparing `images` small PNG images with their texts, by this process alone."""
    with tempfile.TemporaryDirectory(prefix="growth-") as place:
        reset_peak_resident()
        found = _measured(lambda: prepare_data(Many(images), out=Path(place), image_size=32, workers=0), 1)
    return {"work": float(images), **found}


def _made_up(root: Path, strategy: str, seed: int) -> None:
    """A finished run without a training."""
    random = np.random.default_rng([seed, _STRATEGIES.index(strategy)])
    shared = {"steps": 800}
    folder = RunFolder.of(
        *(root, "demo", "default"),
        strategy=strategy,
        view="equal-steps",
        seed=seed,
        config={**shared, "strategy": {}},
        suite=shared,
    )
    score = (random.random(_ITEMS) < 0.9).astype(np.float32)
    flops = 1e12 * (1 + _STRATEGIES.index(strategy))
    curve = [
        {"step": 80 * part, "flops": flops * part / 10, "seconds": 6.0 * part, "accuracy": 0.09 * part}
        for part in range(1, 11)
    ]
    record: dict[str, Any] = {
        "views": ["equal-steps"],
        "started_utc": "2026-01-01T00:00:00+00:00",
        "steps": 800,
        "phases_seconds": {"train": 60.0, "validate": 2.0, "test": 1.0},
        "flops": {"total": flops, "by_task": {}},
        "auxiliary_share_of_mtl_flops": 0.5,
        "peak_memory_bytes": 700_000_000,
        "gpu_peak_memory_bytes": 0,
        "metrics": {"validation": {"accuracy": 0.9}, "test": {"accuracy": float(score.mean())}},
        "floors": {},
        "curve": curve,
        "group_names": {},
        "commit": {"hash": "a" * 40, "dirty": False},
        "versions": {"torch": torch.__version__},
        "hardware": {"cpu": "none", "threads": 1, "gpus": []},
        "data": {"name": "demo", "revision": "1", "content_hash": "c" * 64},
        "model": {"parameters": 1},
    }
    with folder.lock():
        folder.begin()
        folder.finish(record, {"score": score})


def _measured(work: Callable[[], Any], times: int) -> dict[str, float]:
    started, processor = time.perf_counter(), time.process_time()
    work()
    spent, processor_spent = time.perf_counter() - started, time.process_time() - processor
    return {
        "seconds": spent / times,
        "processor_seconds": processor_spent / times,
        "peak_bytes": float(peak_resident_bytes()),
    }


TASKS: dict[str, Callable[..., dict[str, float]]] = {task.__name__: task for task in (step, report, prepare)}

if __name__ == "__main__":
    told = json.loads(sys.argv[2])
    with computing_threads(int(told.get("threads", 1))):
        sys.stdout.write(json.dumps(TASKS[sys.argv[1]](**told)) + "\n")
