"""One training in a process of its own: by this trainer, or by the loop that others would take.

    python -m benchmarks.speed.training_worker TASK ARGUMENTS

ARGUMENTS is a JSON object. Prints one JSON object as its last line. Called by `python -m benchmarks peers training`.
A contrastive training has the same open_clip model, the same first weights, the same photos in the same order, the
same tokens, AdamW settings and learning rates on both sides.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.cases import AUXILIARY, PRIMARY
from benchmarks.cases.vqa.case import VqaCase
from benchmarks.cases.vqa.knobs import RECIPES
from benchmarks.records.machine import reset_peak_resident
from benchmarks.speed.photos import make_photos
from benchmarks.speed.training_setting import (
    CONTEXT,
    DUAL,
    MEAN_STD,
    MEMORY,
    Held,
    Setting,
    found,
    now,
    nudge,
    orders_of,
    warm_steps,
)
from benchmarks.suite.costs import mixture_of
from data_prep.prepare import prepare
from mt2st.batch import Batch
from mt2st.data.prepared import PreparedDataset
from mt2st.data.streams import pixels_tensor
from mt2st.encoders.open_clip_towers import towers_of
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.flops import FlopCounter
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.schedules import Switch
from mt2st.threads import computing_threads
from mt2st.trained.vision_language import trimming
from mt2st.training.config import TrainConfig, decay_groups
from mt2st.training.trainer import Trainer


def prepare_photos(folder: str, image_size: int) -> dict[str, Any]:
    """Our store of the photos, as open_clip's transform for evaluation makes them; how long that takes."""
    started = time.perf_counter()
    prepare(Path(folder) / "set", out=Path(folder) / "data", image_size=image_size, fit=f"edge:{image_size}:bicubic")
    return {"seconds": time.perf_counter() - started}


def ours(setting: Setting) -> dict[str, Any]:
    """The contrastive training by `mt2st.Trainer`."""
    encoder, tokenizer = _encoder(setting)
    split = PreparedDataset.open(next((Path(setting.folder) / "data").glob("set-*"))).split("train")
    tokenize: Callable[[list[str]], Tensor] = tokenizer
    if setting.trim:
        tokenize = trimming(tokenizer, 0)
    # Captions in the order of their images, which is the order of the files' names.
    tokens = tokenize([split.caption_texts()[row] for row in np.argsort(split.caption_images(), kind="stable")])
    orders = [np.asarray(rows) for rows in orders_of(setting, split.num_images)]
    held = _pixels(split, orders) if setting.where == MEMORY else None

    class Captions:
        def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
            rows = orders[index]
            pixels = pixels_tensor(split, rows) if held is None else held[index]
            chosen = torch.from_numpy(rows)
            return {"pixels": pixels, "caption_tokens": tokens[chosen], "caption_group": chosen}

    losses: dict[int, float] = {}
    stamps: list[tuple[float, float]] = []

    def log(line: Mapping[str, Any]) -> None:
        if line["event"] == "train":
            losses[line["step"] - 1] = line["loss/clip"]

    def stepped(step: int) -> None:
        stamps.append(now())

    trainer = Trainer(
        encoder,
        MT2ST(Task(ContrastiveObjective(name="clip"), stream="captions")),
        {"captions": Captions()},
        TrainConfig(
            total_steps=setting.steps,
            learning_rate=setting.learning_rate,
            warmup_fraction=warm_steps(setting) / setting.steps,
            log_every_steps=setting.log_every,
        ),
        log=log,
        on_step=stepped,
    )
    reset_peak_resident()
    stamps.append(now())
    trainer.fit()
    return found(setting, stamps, losses) | {"flops_per_step": trainer.ledger.total / setting.steps}


def theirs(setting: Setting) -> dict[str, Any]:
    """The same training by `open_clip_train`: its data set, its loop, its scheduler and its loss.

    The data set is its CSV one; only the order of the rows is given to the loader, in place of a shuffle. The dual
    encoder is trained by transformers' loop.
    """
    if setting.model == DUAL:
        from benchmarks.speed import dual_training

        return dual_training.theirs(setting)
    from open_clip_train.data import CsvDataset, DataInfo
    from open_clip_train.params import parse_args
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch
    from torch.utils.data import DataLoader

    model, tokenizer = _model(setting)
    args = parse_args(
        f"--batch-size {setting.batch} --workers {setting.workers} --precision fp32 --lr {setting.learning_rate} "
        f"--wd 0.01 --beta1 0.9 --beta2 0.999 --eps 1e-8 --grad-clip-norm 1.0 --warmup {warm_steps(setting)} "
        f"--log-every-n-steps {setting.log_every}".split()
    )
    args.distill, args.distributed, args.horovod, args.device = False, False, False, "cpu"
    args.rank, args.local_rank, args.world_size, args.wandb = 0, 0, 1, False
    decayed = [part for part in model.parameters() if part.ndim >= 2]
    others = [part for part in model.parameters() if part.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.0}, {"params": decayed, "weight_decay": args.wd}],
        lr=args.lr,
        betas=(args.beta1, args.beta2),
        eps=args.eps,
    )
    transform = open_clip.image_transform(setting.image_size, is_train=False, **MEAN_STD)
    data: Any = CsvDataset(str(Path(setting.folder) / "photos.tsv"), transform, "filepath", "title", "\t", tokenizer)
    orders = orders_of(setting, len(data))
    loader: Any
    if setting.where == MEMORY:
        loader = Held(orders, data)
    else:
        flat = [int(row) for rows in orders for row in rows]
        loader = DataLoader(data, batch_size=setting.batch, sampler=flat, num_workers=setting.workers, drop_last=True)
    loader.num_batches, loader.num_samples = setting.steps, setting.steps * setting.batch
    schedule = cosine_lr(optimizer, args.lr, args.warmup, setting.steps)
    stamps: list[tuple[float, float]] = []

    def scheduler(step: int) -> None:  # called once a step, when its batch is there
        stamps.append(now())
        schedule(step)

    losses: dict[int, float] = {}

    class Writer:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            if name == "train/loss":
                losses[step] = float(value)

    reset_peak_resident()
    train_one_epoch(
        model,
        {"train": DataInfo(loader)},
        open_clip.create_loss(args),
        0,
        optimizer,
        None,
        scheduler,
        None,
        args,
        tb_writer=Writer(),
    )
    stamps.append(now())
    return found(setting, stamps, losses)


def _encoder(setting: Setting) -> tuple[Any, Any]:
    """What this package's loop trains, and the tokenizer."""
    if setting.model == DUAL:
        from benchmarks.speed.dual_training import DualEncoder, dual_model  # transformers' Trainer takes time to import

        encoder = DualEncoder(dual_model(setting), setting.image_size)
        return encoder, open_clip.tokenizer.SimpleTokenizer(context_length=CONTEXT)
    model, tokenizer = _model(setting)
    return VisionLanguageEncoder(towers_of(model, tokenizer, loaded=False), fusion_layers=0), tokenizer


def _model(setting: Setting) -> tuple[Any, Any]:
    """A fresh open_clip model, with the same weights each time, and its tokenizer."""
    torch.manual_seed(setting.seed)
    heads = max(1, setting.width // 64)
    patch = setting.image_size // 8
    model = open_clip.CustomTextCLIP(
        embed_dim=setting.width,
        vision_cfg={
            **{"image_size": setting.image_size, "layers": setting.layers, "width": setting.width},
            **{"head_width": setting.width // heads, "patch_size": patch},
        },
        text_cfg={
            **{"context_length": CONTEXT, "vocab_size": 49408, "width": setting.width},
            **{"heads": heads, "layers": setting.layers},
        },
        output_dict=True,
    )
    if setting.nudge:
        nudge(model)
    return model, open_clip.tokenizer.SimpleTokenizer(context_length=CONTEXT)


def _pixels(split: Any, orders: Sequence[np.ndarray]) -> list[Tensor]:
    return [pixels_tensor(split, rows) for rows in orders]


def switched(steps: int, warmup: int, threads: int) -> dict[str, Any]:
    """The default VQA step of this trainer after a switch: the auxiliaries are not run."""
    experiment = VqaCase(RECIPES["default"], Console(quiet=True)).build(0)
    trainer = Trainer(
        experiment.encoder,
        mixture_of(experiment, lambda name: Switch(at=0.0)),
        experiment.streams,
        TrainConfig(total_steps=10**6, log_every_steps=10**6),
    )
    return _timed(trainer.train_step, steps, warmup) | {"flops_per_step": trainer.ledger.total / (steps + warmup)}


def always_both(steps: int, warmup: int, threads: int) -> dict[str, Any]:
    """The same step as a loop in the manner of LibMTL makes it: every task runs, and finished ones weigh 0.

    LibMTL itself pins another torch. This loop is kinder than its trainer: the auxiliaries share one batch and what is
    computed of it, and the optimiser is fused.
    """
    experiment = VqaCase(RECIPES["default"], Console(quiet=True)).build(0)
    tasks: list[Any] = [experiment.primary, *experiment.auxiliaries]
    modules = torch.nn.ModuleList([experiment.encoder, *tasks])
    optimizer = torch.optim.AdamW(decay_groups(modules, 0.01), lr=2e-3, fused=True)
    parameters = list(modules.parameters())
    weights = torch.tensor([1.0] + [0.0] * len(experiment.auxiliaries))

    def step(index: int) -> None:
        features = {name: experiment.encoder.features(experiment.streams[name].batch(index)) for name in streams}
        losses = torch.stack([task(features[PRIMARY if place == 0 else AUXILIARY]) for place, task in enumerate(tasks)])
        (losses * weights).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    streams = (PRIMARY, AUXILIARY)
    with FlopCounter() as counter:
        step(0)
    return _timed(step, steps, warmup) | {"flops_per_step": counter.total}


def _timed(step: Callable[[int], Any], steps: int, warmup: int) -> dict[str, float]:
    """Seconds a step, after `warmup` of them."""
    for index in range(warmup):
        step(index)
    before = now()
    for index in range(warmup, warmup + steps):
        step(index)
    seconds, processor_seconds = ((last - first) / steps for first, last in zip(before, now(), strict=True))
    return {"seconds_per_step": seconds, "processor_seconds_per_step": processor_seconds}


TRAININGS = {"ours": ours, "theirs": theirs}
OTHERS: dict[str, Callable[..., dict[str, Any]]] = {
    **{"make_photos": make_photos, "prepare_photos": prepare_photos},
    **{"switched": switched, "always_both": always_both},
}


def main(task: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run one task with as many threads as it is told."""
    with computing_threads(int(arguments.get("threads", 1))):
        if task in TRAININGS:
            return TRAININGS[task](Setting(**arguments))
        return OTHERS[task](**arguments)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))) + "\n")
