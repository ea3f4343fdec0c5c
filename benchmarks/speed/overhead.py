"""`python -m benchmarks overhead`: what the loop, the ledger and the schedules cost beside a bare hand-written loop.

Both loops do the same operations on equal models and batches, in turn, block by block, so that drifts of the machine's
speed meet both; the ratio is taken pair by pair. Promised: the loop at most 1 % slower, and ledger and schedules at
most 1 % of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console

from benchmarks.cases import AUXILIARY, PRIMARY, Experiment
from benchmarks.cases.vqa.case import VqaCase
from benchmarks.cases.vqa.knobs import RECIPES
from benchmarks.records.machine import environment
from benchmarks.speed.options import OverheadOptions
from benchmarks.suite.costs import mixture_of
from mt2st.files import write_sealed_json
from mt2st.schedules import Diminish
from mt2st.training.config import TrainConfig, decay_groups
from mt2st.training.trainer import Trainer

_LOOP, _SHARE = 1.01, 0.01  # promised: trainer / bare loop; ledger and schedules / a step


def measure(options: OverheadOptions) -> int:
    """Time the loops, print the ratios and write the record; returns 0 if both promises hold, else 1."""
    console = Console()
    if options.threads:
        torch.set_num_threads(options.threads)
    case = VqaCase(RECIPES["default"], console)
    total = options.steps * (options.blocks + 1)
    experiment = case.build(0)
    # A rate of 0 keeps the auxiliaries on, so that both loops do the same work at every step.
    trainer = Trainer(
        experiment.encoder,
        mixture_of(experiment, lambda name: Diminish(rate=0.0)),
        experiment.streams,
        TrainConfig(total_steps=total, log_every_steps=10 * total),
    )
    bare = BareLoop(case.build(0), trainer.accelerator.device)
    loops: dict[str, Callable[[int], Any]] = {"trainer": trainer.train_step, "bare": bare.step}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for block in range(options.blocks + 1):
        for name in sorted(loops, reverse=bool(block % 2)):
            started = time.perf_counter()
            for step in range(block * options.steps, (block + 1) * options.steps):
                loops[name](step)
            if block:  # the first block warms up
                seconds[name].append(time.perf_counter() - started)
    ratios = sorted(ours / theirs for ours, theirs in zip(seconds["trainer"], seconds["bare"], strict=True))
    bookkeeping = _bookkeeping_seconds(trainer, total)
    step_seconds = sorted(seconds["trainer"])[len(ratios) // 2] / options.steps
    loop_ratio, share = ratios[len(ratios) // 2], bookkeeping / step_seconds
    record = {
        **environment(),
        "blocks": options.blocks,
        "steps_per_block": options.steps,
        "seconds": seconds,
        "trainer_to_bare_ratios": ratios,
        "median_ratio": loop_ratio,
        "ledger_and_schedule_seconds_per_step": bookkeeping,
        "ledger_and_schedule_share": share,
        "step_seconds": step_seconds,
    }
    path = options.results / "overhead" / "overhead.json"
    write_sealed_json(path, record)
    quarter = len(ratios) // 4
    console.print(
        f"trainer / bare loop: {loop_ratio:.4f} (quartiles {ratios[quarter]:.4f} … {ratios[-1 - quarter]:.4f}, "
        f"{options.blocks} pairs of {options.steps} steps of {step_seconds * 1e3:.1f} ms); promised ≤ {_LOOP}\n"
        f"ledger and schedules: {bookkeeping * 1e6:.0f} µs a step = {share:.3%}; promised ≤ {_SHARE:.0%}\n"
        f"record: {path}",
        highlight=False,
    )
    return 0 if loop_ratio <= _LOOP and share <= _SHARE else 1


class BareLoop:
    """The same operations as the trainer's step, written out by hand, with nothing around them."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        self.device = device
        parts: list[Any] = [experiment.encoder, experiment.primary, *experiment.auxiliaries]
        modules = torch.nn.ModuleList(parts).to(device)
        self.encoder, self.primary, *self.auxiliaries = parts
        self.primary_stream, self.auxiliary_stream = experiment.streams[PRIMARY], experiment.streams[AUXILIARY]
        self.parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(decay_groups(modules, 0.01), lr=2e-3, fused=True)

    def step(self, step: int) -> None:
        """One optimiser step."""
        primary = {name: tensor.to(self.device) for name, tensor in self.primary_stream.batch(step).items()}
        auxiliary = {name: tensor.to(self.device) for name, tensor in self.auxiliary_stream.batch(step).items()}
        loss = self.primary(self.encoder.features(primary))
        features = self.encoder.features(auxiliary)
        for objective in self.auxiliaries:
            loss = loss + objective(features)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _bookkeeping_seconds(trainer: Trainer, total: int) -> float:
    """Seconds a step of what only a ledger and schedules need: weights, the step's kind, adding it up."""
    batches = {stream: trainer.streams[stream].batch(0) for stream in trainer.streams}
    repeats = 2000
    started = time.perf_counter()
    for repeat in range(repeats):
        weights = trainer.mixture.weights(repeat % total, total, seed=0)
        kind = trainer.kind(batches, weights)
        if trainer.ledger.knows(kind):
            trainer.ledger.add(kind)
    return (time.perf_counter() - started) / repeats
