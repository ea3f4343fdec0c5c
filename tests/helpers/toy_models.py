"""Models without pixels or words, to show and to test that the loop serves them too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.batch import Batch
from mt2st.data.streams import EpochOrder
from mt2st.mixture import MT2ST, Task
from mt2st.schedules import Constant, Schedule


class Rows:
    """Batches of fixed random rows: `x` [count, 4] and a target `y` [count, 1]; pure in the index."""

    def __init__(self, count: int = 4, seed: int = 0, size: int = 10) -> None:
        random = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, 4, generator=random)
        self.y = self.x.sum(1, keepdim=True) + 0.1 * torch.randn(size, 1, generator=random)
        self.count, self.order = count, EpochOrder(size, seed, "rows")
        self.asked: list[int] = []

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        self.asked.append(index)
        rows = torch.from_numpy(self.order((index * world + rank) * self.count, self.count))
        return {"x": self.x[rows], "y": self.y[rows]}


class LinearEncoder(nn.Module):
    """A hidden layer; features are the batch and its hidden states, computed when asked for."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout))
        self.calls = 0

    def features(self, batch: Batch) -> Any:
        self.calls += 1
        return {"hidden": self.hidden(batch["x"]), **batch}


class Regression(nn.Module):
    """Mean squared error of a linear head."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.head = nn.Linear(8, 1)
        self.calls = 0

    def forward(self, features: Any) -> Tensor:
        self.calls += 1
        return functional.mse_loss(self.head(features["hidden"]), features["y"])


def regression(
    *, dropout: float = 0.0, seed: int = 0, stream: str = "primary", **auxiliaries: Schedule
) -> tuple[LinearEncoder, MT2ST]:
    """An encoder and a mixture of "main" and the named auxiliaries, with weights that depend on `seed` alone."""
    torch.manual_seed(seed)
    encoder = LinearEncoder(dropout)
    tasks = [Task(Regression(name), schedule, stream=stream) for name, schedule in auxiliaries.items()]
    return encoder, MT2ST(Task(Regression("main"), Constant()), tasks)
