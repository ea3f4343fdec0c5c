"""One rank of two: a step of the contrastive objective, of batch normalisation, and whole trainings.

Run by `tests/integration/test_two_processes.py`.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from mt2st.balancing import FAMO, PCD, PCGrad, UncertaintyWeighting, UPGrad
from mt2st.listening import Aligned, Flattening, Forked
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.schedules import Schedule, Switch
from mt2st.training.config import TrainConfig
from mt2st.training.joint_norm import join_norms
from mt2st.training.trainer import Trainer, TrainingInterrupted
from tests.helpers.toy_models import Rows, regression


class Linears(nn.Module):
    """Two linear towers and the loss, in one module; double precision, so that sums in another order agree."""

    def __init__(self, loss: str) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(6, 4), nn.Linear(5, 4)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.logit_bias = nn.Parameter(torch.tensor(-0.5)) if loss == "sigmoid" else None
        self.objective = ContrastiveObjective(loss)  # type: ignore[arg-type]

    def forward(self, images: Tensor, texts: Tensor, group: Tensor) -> Tensor:
        features = Features(
            encoder=SimpleNamespace(towers=SimpleNamespace(logit_scale=self.logit_scale, logit_bias=self.logit_bias)),
            image_embedding=functional.normalize(self.image(images), dim=-1),
            caption_embedding=functional.normalize(self.text(texts), dim=-1),
            caption_group=group,
        )
        return self.objective(features)


class Features(SimpleNamespace):
    def __getitem__(self, name: str) -> Tensor:
        found: Tensor = getattr(self, name)
        return found


def model_and_batch(loss: str, rows: int = 8) -> tuple[Linears, tuple[Tensor, Tensor, Tensor]]:
    """The same weights and the same whole batch in every process; captions repeat within and across the halves."""
    torch.manual_seed(0)
    model = Linears(loss).double()
    group = torch.tensor([0, 1, 2, 1, 3, 0, 4, 1])[:rows]
    return model, (torch.randn(rows, 6).double(), torch.randn(rows, 5).double(), group)


def step(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    loss = model(*batch)
    loss.backward()
    gradients = {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": loss.detach(), **gradients}


NORMS: dict[str, dict[str, Any]] = {"default": {}, "cumulative": {"momentum": None}, "plain": {"affine": False}}


def normalise(name: str, own: slice, *, joint: bool) -> dict[str, Tensor]:
    """Two training steps and one evaluation of a batch normalisation on images `own` of eight; double precision.

    Returns:
        Outputs and the input's gradient (both of the own images), the parameters' gradients, the running statistics.
        The loss is the mean over the own images, as in training.
    """
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.BatchNorm2d(3, **NORMS[name])).double()
    if joint:
        join_norms(model)
        model = DistributedDataParallel(model) if list(model.parameters()) else model
    found: dict[str, Tensor] = {}
    for training in (True, True, False):
        images, weights = torch.randn(8, 3, 4, 5).double() * 3 + 2, torch.randn(8, 3, 4, 5).double()
        model.train(training)
        model.zero_grad()
        values = images[own].clone().requires_grad_()
        output = model(values)
        (output * weights[own]).square().mean().backward()
        found |= {f"output/{training}": output.detach(), f"input/{training}": values.grad}  # type: ignore[dict-item]
        gradients = {key.rpartition(".")[2]: parameter.grad for key, parameter in model.named_parameters()}
        found |= {f"{key}/{training}": gradient for key, gradient in gradients.items()}
    return found | {key.rpartition(".")[2]: buffer for key, buffer in model.named_buffers()}


TRAININGS = ("plain", "interrupted", "sharded")
BALANCED: dict[str, Any] = {"FAMO": FAMO, "UncertaintyWeighting": UncertaintyWeighting}
if find_spec("torchjd") and find_spec("quadprog"):
    BALANCED |= {"UPGrad": UPGrad, "PCGrad": PCGrad, "PCD": PCD}


def train(name: str, folder: Path, rank: int, rows: int = 4) -> dict[str, Any]:
    """Twelve steps through a switch.

    "interrupted" stops once because of a signal that one rank alone gets, and goes on; so does "sharded", with AdamW's
    states shared out. Those of `BALANCED` have two auxiliaries and a balancer, and are interrupted too.
    """
    lines: list[Any] = []

    def on_step(step: int) -> None:
        if name != "plain" and rank == 1 and step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    def build(on_step: Any) -> Trainer:
        schedules = {"aux": Switch(0.5), "more": Switch(0.75)} if name in BALANCED else {"aux": Switch(0.5)}
        encoder, tasks = regression(**schedules)
        balancer = BALANCED[name](tuple(tasks.tasks)) if name in BALANCED else None
        config = TrainConfig(12, log_every_steps=3, checkpoint_every_steps=5, clip_norm=0.5, shard=name == "sharded")
        return Trainer(
            encoder,
            tasks,
            {"primary": Rows(rows, size=24)},
            config,
            balancer=balancer,
            folder=folder,
            on_step=on_step,
            log=lines.append,
        )

    run, stopped = build(on_step), ""
    try:
        result = run.fit()
    except TrainingInterrupted as interrupt:
        stopped = str(interrupt)
        run = build(lambda step: None)
        result = run.fit()
    weights = {name: parameter.detach() for name, parameter in run._bare.named_parameters()}
    return {"weights": weights, "stopped": stopped, "lines": len(lines), "flops": result.ledger.total}


LISTENERS: dict[str, Schedule] = {
    "own_loss": Flattening(every=0.1, batches=2, patience=2, threshold=0.9),
    "benefit": Forked(every=0.2, fork=0.1, batches=2, margin=10.0),
    "cosine": Aligned(every=0.15, batches=3, patience=2, threshold=1.0),
}


def listen(name: str, rows: int = 4) -> dict[str, Any]:
    """A run on a budget whose auxiliary stops by what it hears."""
    encoder, tasks = regression(aux=LISTENERS[name])
    run = Trainer(
        encoder,
        tasks,
        {"primary": Rows(rows, size=24)},
        TrainConfig(total_flops=20_000),
        validation_streams=lambda: {"primary": Rows(rows, seed=1, size=24)},
    )
    result = run.fit()
    weights = {name: parameter.detach() for name, parameter in run._bare.named_parameters()}
    heard = [[row["step"], row["value"], row["stopped"]] for row in result.listening]
    return {"weights": weights, "heard": heard, "flops": result.ledger.total, "steps": result.steps}


def main(folder: str, rank: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for loss in ("softmax", "sigmoid"):
        model, batch = model_and_batch(loss)
        half = slice(4 * rank, 4 * rank + 4)
        found = step(DistributedDataParallel(model), tuple(part[half] for part in batch))  # type: ignore[arg-type]
        torch.save(found, Path(folder) / f"{loss}-{rank}.pt")
    for name in NORMS:
        torch.save(normalise(name, slice(4 * rank, 4 * rank + 4), joint=True), Path(folder) / f"norm-{name}-{rank}.pt")
    for name in (*TRAININGS, *BALANCED):
        torch.save(train(name, Path(folder) / f"run-{name}", rank), Path(folder) / f"{name}-{rank}.pt")
    for name in LISTENERS:
        torch.save(listen(name), Path(folder) / f"listen-{name}-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    # As `benchmarks.suite.ranks.end` does: a late thread of gloo would abort a process that shuts Python down.
    os._exit(0)
