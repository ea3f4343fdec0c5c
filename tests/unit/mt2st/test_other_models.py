"""The loop serves models without pixels: word embeddings and a toy diffusion model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.batch import Batch
from mt2st.mixture import MT2ST, Task
from mt2st.schedules import Constant, Switch
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer


def weights(run: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


class WordVectors(nn.Module):
    """Skip-gram with negative samples: an embedding of centres and one of contexts, and nothing else."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.centres, self.contexts = nn.Embedding(words, width), nn.Embedding(words, width)

    def features(self, batch: Batch) -> Any:
        return SimpleNamespace(centre=self.centres(batch["centre"]), context=self.contexts.weight, batch=batch)


class SkipGram(nn.Module):
    name = "skip_gram"

    def forward(self, features: Any) -> Tensor:
        return functional.cross_entropy(features.centre @ features.context.T, features.batch["context"])


class Rhyme(nn.Module):
    """An auxiliary: words of one group are to be near each other."""

    name = "group"

    def forward(self, features: Any) -> Tensor:
        same = features.batch["group"][:, None] == features.batch["group"][None, :]
        return functional.binary_cross_entropy_with_logits(features.centre @ features.centre.T, same.float())


class WordPairs:
    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        random = torch.Generator().manual_seed(index * world + rank)
        centre = torch.randint(0, 12, (32,), generator=random)
        return {"centre": centre, "context": (centre + 1) % 12, "group": centre % 3}


def test_word_embeddings_train_through_the_same_loop() -> None:
    torch.manual_seed(0)
    lines: list[Mapping[str, Any]] = []
    tasks = MT2ST(Task(SkipGram(), Constant()), [Task(Rhyme(), Switch(0.3, initial=0.2))])
    result = Trainer(
        WordVectors(12, 8),
        tasks,
        {"primary": WordPairs()},
        TrainConfig(150, learning_rate=0.1, log_every_steps=1),
        log=lines.append,
    ).fit()
    assert lines[0]["loss/skip_gram"] > math.log(12)  # worse than guessing, with random vectors
    assert lines[-1]["loss/skip_gram"] < 0.1
    assert result.ledger.by_task()["skip_gram"]["forward"] == 150 * 2 * 32 * 8 * 12
    assert result.ledger.by_task()["group"]["forward"] == 45 * 2 * 32 * 8 * 32


class NoisePredictor(nn.Module):
    """A toy diffusion model on points: predicts the noise from noisy point and noise level.

    Noise is drawn in `features`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def features(self, batch: Batch) -> Any:
        points = batch["points"]
        level, noise = torch.rand(len(points), 1), torch.randn_like(points)
        noisy = torch.cos(level * math.pi / 2) * points + torch.sin(level * math.pi / 2) * noise
        return SimpleNamespace(predicted=self.net(torch.cat([noisy, level], 1)), noise=noise)


class Denoise(nn.Module):
    name = "denoise"

    def forward(self, features: Any) -> Tensor:
        return functional.mse_loss(features.predicted, features.noise)


class Circle:
    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        angle = 6.283 * torch.rand(64, 1, generator=torch.Generator().manual_seed(index * world + rank))
        return {"points": torch.cat([angle.cos(), angle.sin()], 1)}


def test_a_diffusion_model_trains_through_the_same_loop_and_resumes(tmp_path: Path) -> None:
    def run(folder: Path, stop_at: int | None = None) -> tuple[list[Tensor], list[float]]:
        torch.manual_seed(0)
        losses: list[float] = []

        def stop(step: int) -> None:
            if step == stop_at:
                raise ConnectionError("the machine went away")

        config = TrainConfig(200, learning_rate=1e-2, checkpoint_every_steps=50, log_every_steps=1)
        model = Trainer(
            NoisePredictor(),
            MT2ST(Task(Denoise(), Constant())),
            {"primary": Circle()},
            config,
            folder=folder,
            on_step=stop,
            log=lambda line: losses.append(line.get("loss/denoise", math.nan)),
        )
        try:
            model.fit()
        except ConnectionError:
            return run(folder)
        return weights(model), losses

    whole, losses = run(tmp_path / "whole")
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])
    assert equal(whole, run(tmp_path / "killed", stop_at=77)[0])
