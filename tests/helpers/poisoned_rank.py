"""One process of several: as `python -m benchmarks`, but on process 1 a loss of MTL is NaN in step 3.

Run by `tests/integration/test_processes.py`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from benchmarks import cli
from mt2st.schedules import Constant
from mt2st.training.trainer import Trainer

_STEP = Trainer.train_step


def poisoned(self: Any, step: int) -> Any:
    losses = _STEP(self, step)
    schedules = [task.schedule for task in self.mixture.tasks.values()]
    if step == 3 and os.environ["RANK"] == "1" and all(isinstance(schedule, Constant) for schedule in schedules):
        self.steps.unchecked.append((step, "vqa", torch.tensor(float("nan"))))
    return losses


if __name__ == "__main__":
    Trainer.train_step = poisoned  # type: ignore[method-assign]
    sys.exit(cli.main(sys.argv[1:]))
