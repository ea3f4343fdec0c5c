"""One check of a GPU in a process of its own, so that none can sink another.

    python -m benchmarks.speed.gpu_worker TASK ARGUMENTS

ARGUMENTS is a JSON object with `device` ("cuda" or "cpu") and `dry` (small sizes). Prints one JSON value as its last
line. Called by `python -m benchmarks gpu`. On the CPU the same code runs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.cases import AUXILIARY, PRIMARY, load_card
from benchmarks.cases.vqa.case import VqaCase
from benchmarks.cases.vqa.knobs import RECIPES
from benchmarks.records.machine import peak_gpu_bytes, peak_resident_bytes, reset_peak_gpu, reset_peak_resident
from benchmarks.speed.loop import HeldBatch
from benchmarks.speed.photos import make_photos
from benchmarks.suite.costs import mixture_of
from data_prep.prepare import prepare
from mt2st.data.prepared import PreparedDataset
from mt2st.data.streams import CaptionStream
from mt2st.encoders.open_clip_towers import named_towers, towers_of
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.flops import FlopCounter
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.objectives.vqa import AnswerObjective
from mt2st.schedules import Constant, Switch
from mt2st.training.config import TrainConfig
from mt2st.training.prefetch import Prefetched
from mt2st.training.trainer import Trainer


def flops(device: str, dry: bool, case: str, data_folder: str = "data") -> dict[str, int]:
    """FLOPs of a case's step, forward and backward, of all tasks and of the primary task alone."""
    card = load_card(case)
    knobs = replace(card.knobs("default", smoke=dry), data_folder=Path(data_folder))
    experiment = card.open(knobs, Console(quiet=True)).build(0)
    mixture = mixture_of(experiment, lambda name: Constant()).to(device)
    experiment.encoder.to(device)
    experiment.tuning.run_once(lambda line: None)
    found = {}
    for active, names in (("all", list(mixture.tasks)), ("primary", [mixture.primary.name])):
        weights = dict.fromkeys(names, 1.0)
        batches = {
            stream: {name: tensor.to(device) for name, tensor in experiment.streams[stream].batch(0).items()}
            for stream in mixture.streams(weights)
        }
        with FlopCounter() as counter:
            losses = mixture(experiment.encoder.features, batches, weights)
            torch.stack(list(losses.values())).sum().backward()
        found[active] = counter.total
    return found


def accuracy(device: str, dry: bool, seed: int, data_folder: str = "data") -> dict[str, float]:
    """Validation accuracy of the default VQA recipe under MTL, after all its steps; in a dry run after few."""
    knobs = replace(RECIPES["default"], data_folder=Path(data_folder))
    steps = 20 if dry else knobs.steps
    experiment = VqaCase(knobs, Console(quiet=True), seed).build(seed)
    trainer = _trainer(experiment, TrainConfig(steps, seed=seed, learning_rate=2e-3), validate=experiment.validate)
    result = trainer.fit()
    last = {name: value for name, value in result.curve[-1].items() if name != "flops"}
    return {"seconds_per_step": result.train_seconds / steps, "device_is_cuda": float(_on_cuda(trainer)), **last}


def resume(device: str, dry: bool, data_folder: str = "data") -> dict[str, Any]:
    """Whether a run that is stopped half way and goes on ends with the bits of an uninterrupted one."""
    case = VqaCase(replace(RECIPES["default"], data_folder=Path(data_folder)), Console(quiet=True))
    steps = 8 if dry else 60
    ends = []
    with tempfile.TemporaryDirectory(prefix="resume-") as place:
        for name, stops in (("whole", ()), ("cut", (steps // 2,))):
            for stop in (*stops, 0):
                ends_now = _trained(case, Path(place) / name, steps, stop)
            ends.append(ends_now)
    differing = sum(not torch.equal(one, other) for one, other in zip(*ends, strict=True))
    return {"tensors": len(ends[0]), "differing": differing, "steps": steps}


def _trained(case: VqaCase, folder: Path, steps: int, stop: int) -> list[Tensor]:
    """The weights after the run, or after it was stopped behind the checkpoint of step `stop`."""

    class StoppedError(Exception):
        pass

    def on_step(step: int) -> None:
        if step == stop + 1:
            raise StoppedError

    experiment = case.build(0)
    config = TrainConfig(steps, checkpoint_every_steps=max(1, steps // 4))
    mixture = mixture_of(experiment, lambda name: Switch(at=0.6))
    trainer = Trainer(
        *(experiment.encoder, mixture, experiment.streams, config), folder=folder, on_step=on_step if stop else _nothing
    )
    with contextlib.suppress(StoppedError):
        trainer.fit()
    return [parameter.detach().cpu() for parameter in trainer.parameters()]


def _nothing(step: int) -> None:
    """Hear of a step and do nothing."""


def bf16(device: str, dry: bool, data_folder: str = "data") -> dict[str, float]:
    """The first and last losses of the default VQA recipe in fp32 and in bf16, and the time of a step of both."""
    case = VqaCase(replace(RECIPES["default"], data_folder=Path(data_folder)), Console(quiet=True))
    steps = 12 if dry else 120
    found: dict[str, float] = {}
    for precision in ("no", "bf16"):
        losses: list[float] = []

        def log(line: Mapping[str, Any], losses: list[float] = losses) -> None:
            if line["event"] == "train":
                losses.append(line["loss/vqa"])

        config = TrainConfig(steps, precision=precision, log_every_steps=1)
        result = _trainer(case.build(0), config, log=log).fit()
        tail = losses[-max(1, steps // 6) :]
        found |= {f"{precision}/first": losses[0], f"{precision}/last": sum(tail) / len(tail)}
        found[f"{precision}/seconds_per_step"] = result.train_seconds / steps
    return found


def peak(device: str, dry: bool) -> dict[str, float]:
    """The device's best rate of a square product, in FLOP/s, by precision."""
    found = {}
    size = 256 if dry else 8192
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        best = math.inf
        for _ in range(3 if dry else 20):
            best = min(best, _seconds(device, partial(torch.matmul, left, right)))
        found[name] = 2 * size**3 / best
    return found


def step(device: str, dry: bool, compile: bool, batch: int = 0) -> dict[str, float]:
    """A step of ViT-B/16 CLIP with VQA (3,129 answers) and contrastive learning, bf16: rate, FLOPs, memory.

    Batches lie on the device already; see `loading` for how they get there. In a dry run the towers are small.
    """
    count = batch or (4 if dry else 128)
    torch.manual_seed(0)
    towers = _small_towers() if dry else named_towers("ViT-B-16")
    encoder = VisionLanguageEncoder(towers, fusion_width=64 if dry else 512, fusion_layers=1, fusion_heads=2)
    answers = 13 if dry else 3129
    mixture = MT2ST(
        Task(AnswerObjective(encoder.fusion.width, answers), stream=PRIMARY),
        [Task(ContrastiveObjective(), Constant(), stream=AUXILIARY)],
    )
    side, length = towers.image_size, towers.context_length
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, device=device)
    tokens = torch.randint(1, 1000, (count, length), device=device)
    tokens[:, -1] = 49407  # where CLIP's text tower reads off the embedding
    rows = torch.arange(count, device=device)
    targets = torch.nn.functional.one_hot(rows % answers, answers).float()
    streams = {
        PRIMARY: HeldBatch(
            {"pixels": pixels, "question_tokens": tokens, "question_image": rows, "answer_targets": targets}
        ),
        AUXILIARY: HeldBatch({"pixels": pixels, "caption_tokens": tokens, "caption_group": rows}),
    }
    config = TrainConfig(10**6, learning_rate=1e-4, log_every_steps=10**6, precision="bf16", compile=compile)
    trainer = Trainer(encoder, mixture, streams, config)
    reset_peak_gpu()
    reset_peak_resident()
    warm = 2 if dry else 6
    started = time.perf_counter()
    for index in range(warm):
        trainer.train_step(index)
    _wait(device)
    start_seconds = time.perf_counter() - started
    steps = 2 if dry else 30
    spent = _seconds(device, lambda: [trainer.train_step(warm + index) for index in range(steps)])
    return {
        "images_per_second": 2 * count * steps / spent,
        "seconds_per_step": spent / steps,
        "flops_per_second": trainer.ledger.total / (warm + steps) * steps / spent,
        "first_steps_seconds": start_seconds,
        "peak_bytes": peak_gpu_bytes() or peak_resident_bytes(),
        "batch": count,
        "device_is_cuda": float(_on_cuda(trainer)),
    }


def contrastive(device: str, dry: bool) -> dict[str, float]:
    """The contrastive loss at batch 32,768 by chunks; at a smaller batch its value and gradient against the whole."""
    small, large, rows, width = (24, 96, 10, 8) if dry else (4096, 32768, 2048, 512)

    def loss(count: int, chunk_rows: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        image, text = (torch.nn.functional.normalize(torch.randn(count, width, device=device), dim=1) for _ in range(2))
        image.requires_grad_(True)
        scale = torch.tensor(math.log(1 / 0.07), device=device)
        towers = SimpleNamespace(logit_scale=scale)
        group = torch.arange(count, device=device) // 2
        features = _Features(SimpleNamespace(towers=towers), image, text, group)
        value = ContrastiveObjective(chunk_rows=chunk_rows)(features)
        value.backward()
        return value.detach(), image.grad if image.grad is not None else torch.zeros(())

    (whole, whole_gradient), (parts, parts_gradient) = loss(small, 0), loss(small, rows)
    reset_peak_gpu()
    reset_peak_resident()
    spent = _seconds(device, lambda: loss(large, rows))
    return {
        "difference": float((whole - parts).abs() / whole.abs()),
        "gradient_difference": float((whole_gradient - parts_gradient).abs().max() / whole_gradient.abs().max()),
        "batch": large,
        "seconds": spent,
        "peak_bytes": peak_gpu_bytes() or peak_resident_bytes(),
    }


class _Features:
    """What the contrastive objective asks for."""

    def __init__(self, encoder: Any, image: Tensor, text: Tensor, group: Tensor) -> None:
        self.encoder, self.image_embedding, self.caption_embedding, self._group = encoder, image, text, group

    def __getitem__(self, name: str) -> Tensor:
        return self._group


def loading(device: str, dry: bool) -> dict[str, float]:
    """Images a second that come onto the device: from a store of pixels, and from one of originals, decoded on the fly.

    Both are made ahead by threads, one a core, and lie in pinned memory where there is a GPU.
    """
    photos, side, batch = (12, 32, 4) if dry else (1024, 224, 128)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, float] = {"workers": workers}
    with tempfile.TemporaryDirectory(prefix="loading-") as place:
        make_photos(place, photos)
        for store in ("pixels", "encoded"):
            path = prepare(Path(place) / "set", out=Path(place) / store, image_size=side, store=store)
            split = PreparedDataset.open(path).split("train")
            captions = CaptionStream(split, lambda texts: torch.zeros(len(texts), 8).long(), images_per_batch=batch)
            stream = Prefetched(captions, workers)
            steps = 3 if dry else 40

            def move(indices: range, stream: Prefetched = stream) -> None:
                for index in indices:
                    for tensor in stream.batch(index).values():
                        tensor.to(device, non_blocking=True)

            move(range(1))
            spent = _seconds(device, partial(move, range(1, 1 + steps)))
            found[store] = steps * batch / spent
    return found


def _small_towers() -> Any:
    import open_clip

    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16}
    model = open_clip.CustomTextCLIP(embed_dim=64, vision_cfg=vision, text_cfg=text)
    return towers_of(model, open_clip.tokenizer.SimpleTokenizer(context_length=16), loaded=False)


def _trainer(experiment: Any, config: TrainConfig, **more: Any) -> Trainer:
    return Trainer(
        *(experiment.encoder, mixture_of(experiment, lambda name: Constant()), experiment.streams, config), **more
    )


def _on_cuda(trainer: Trainer) -> bool:
    return next(trainer.parameters()).device.type == "cuda"


def _wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds(device: str, work: Callable[[], Any]) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task for task in (flops, accuracy, resume, bf16, peak, step, contrastive, loading)
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))) + "\n")
