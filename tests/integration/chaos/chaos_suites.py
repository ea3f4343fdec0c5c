"""Tiny suites of both cases, run in forked children that can be killed, and what may not differ by a bit afterwards.

The parent imports everything and prepares the data once; a child is a fork of it, so that an attempt costs what it does
and not what importing torch costs. A child ends with the command line's own exit codes (`benchmarks.cli.main`).
"""

from __future__ import annotations

import io
import json
import mmap
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"  # a fork must not inherit a pool of threads
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402 - all of these come after the environment is set
from rich.console import Console  # noqa: E402

import mt2st.training.trainer  # noqa: E402
from benchmarks import cli  # noqa: E402
from benchmarks.cases.retrieval import knobs as retrieval  # noqa: E402
from benchmarks.cases.retrieval.case import RetrievalCase  # noqa: E402
from benchmarks.cases.shared.encoder_knobs import EncoderKnobs  # noqa: E402
from benchmarks.cases.vqa import knobs as vqa  # noqa: E402
from benchmarks.cases.vqa.case import VqaCase  # noqa: E402
from benchmarks.commands._case import run_suite  # noqa: E402
from benchmarks.records.folder import RunFolder  # noqa: E402
from benchmarks.report import write  # noqa: E402
from benchmarks.suite import train  # noqa: E402
from mt2st.training.config import TrainSettings  # noqa: E402
from tests.helpers.tiny_suite import outcome  # noqa: E402

torch.set_num_threads(1)

DRAWN = ROOT / "tests" / "helpers" / "drawn_dataset.py"
CASES = ("vqa", "retrieval")
PHASES = ("start", "train", "switch", "validate", "checkpoint", "test", "record", "report", "over")
_TINY = EncoderKnobs(width=16, embedding_width=16, fusion_width=16, stem_width=4, vocabulary_size=300)
_SHARED = {
    "data": str(DRAWN), "image_size": 16, "steps": 8, "seeds": 1, "views": ("equal-steps",), "validations": 2,
    "encoder": _TINY, "threads": 1, "keep": "checkpoints",
}  # fmt: skip
_OWN: dict[str, dict[str, Any]] = {
    "vqa": {"label_fraction": 0.5, "images_per_batch": 4, "questions_per_image": 2, "caption_images_per_batch": 8,
            "auxiliaries": ("contrastive", "masked_lm")},
    "retrieval": {"second_test_split": "", "images_per_batch": 8, "caption_images_per_batch": 8,
                  "auxiliaries": ("captions", "masked_lm")},
}  # fmt: skip
_MODULES = {"vqa": (vqa, VqaCase), "retrieval": (retrieval, RetrievalCase)}


class Suite:
    """A case with tiny knobs, whose data are prepared on the first `case`.

    Args:
        accumulation: micro-batches an optimiser step.
        changes: other knobs of the case.
    """

    def __init__(self, name: str, data_folder: Path, *, accumulation: int = 1, **changes: Any) -> None:
        self.name = name
        module, self._kind = _MODULES[name]
        self.spec = module.SPEC
        own = {"data_folder": data_folder, "train": TrainSettings(checkpoint_every_steps=2, accumulation=accumulation)}
        self.knobs = module.Knobs(**{**_SHARED, **_OWN[name], **own, **changes})
        self._case: Any = None

    @property
    def case(self) -> Any:
        if self._case is None:
            self._case = self._kind(self.knobs, Console(file=io.StringIO()))
        return self._case

    def run(self, results: Path) -> int:
        """Run the suite as the command line does; returns its exit code, one line of error on stderr."""
        console = Console(file=io.StringIO(), width=500)

        def dispatch(argv: list[str]) -> int:
            return run_suite(
                self.case, self.knobs, self.spec, benchmark=self.name, recipe="chaos", results=results, console=console
            )

        before, cli._dispatch = cli._dispatch, dispatch
        try:
            return cli.main([self.name])
        finally:
            cli._dispatch = before
            sys.stdout.write(console.file.getvalue())  # type: ignore[attr-defined]

    def outcome(self, results: Path) -> dict[str, dict[str, Any]]:
        """Run id → everything that must be the same bits: weights, optimiser, ledger, curve, items, metrics, log.

        Not the seconds.

        Raises:
            AssertionError: there are holes.
        """
        return outcome(results, self.name, "chaos")


def fork(action: Callable[[], int], output: Path) -> int:
    """Run `action` in a child, its output going to a file; returns the child's process id.

    The child exits with what `action` returns.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70  # an exception that the command line lets through
    torch.set_num_threads(1)  # torch mends its pool at the first call after a fork, and two threads at once break it
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        code = action()
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:  # between the command line's end and this one
        code = 130
    except BaseException:  # noqa: BLE001 - a forked child may not go on in the parent's code, whatever happened
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """Exit code of a child; −n if signal n ended it."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


class PhaseWatch:
    """Which phase a child is in: shared memory for the phase, a pipe for every entry into one."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)
        self.reading, self._writing = os.pipe()

    @property
    def phase(self) -> str:
        return PHASES[self._shared[0]]

    def close(self) -> None:
        os.close(self.reading)
        self._shared.close()

    def started(self) -> None:
        """In the parent, once the child runs: only the child writes."""
        os.close(self._writing)

    def enter(self, phase: str) -> None:
        """In the child."""
        self._shared[0] = PHASES.index(phase)
        os.write(self._writing, bytes([PHASES.index(phase)]))

    def instrument(self) -> None:
        """In the child: note the phases of runs from now on."""
        self.enter("start")
        trainer, active = train.Trainer, [None]
        step, validate, fit = trainer.train_step, trainer._maybe_validate, trainer.fit

        def watched_step(self_: Any, at: int) -> Any:
            weights = tuple(self_.mixture.weights(at, self_.config.total_steps, seed=self_.config.seed))
            switched = at > 0 and active[0] is not None and weights != active[0]
            active[0] = weights  # type: ignore[call-overload]
            self.enter("switch" if switched else "train")
            return step(self_, at)

        def watched_validate(self_: Any, ended: bool) -> None:
            every = self_.config.evaluate_every_steps
            if self_._progress.step % every == 0:
                self.enter("validate")
            validate(self_, ended)

        def watched_fit(self_: Any) -> Any:
            active[0] = None
            result = fit(self_)
            self.enter("test")
            return result

        trainer.train_step, trainer._maybe_validate, trainer.fit = watched_step, watched_validate, watched_fit  # type: ignore[method-assign]
        mt2st.training.trainer.save_checkpoint = self._watched("checkpoint", mt2st.training.trainer.save_checkpoint)
        RunFolder.finish = self._watched("record", RunFolder.finish)  # type: ignore[method-assign]
        write.report = self._watched("report", write.report)

    def _watched(self, phase: str, function: Any) -> Any:
        def watched(*arguments: Any, **named: Any) -> Any:
            self.enter(phase)
            return function(*arguments, **named)

        return watched


def as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
