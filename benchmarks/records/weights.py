"""The final weights of a finished run: how a run keeps them, and how another one, or an evaluation, finds them.

While a run is trained its checkpoints hold weights and the optimiser's state. When it has finished, `--keep` says what
is left: the weights alone (a third of one checkpoint), the checkpoints as they are, or nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.records.check import CHECKPOINTS, RECORD_FILE, verify_values
from mt2st.errors import Mt2stError
from mt2st.files import atomic_path, file_hash, read_sealed_json
from mt2st.training.checkpoint import newest_checkpoint

WEIGHTS_FILE = "weights.safetensors"
TEXT_FILES = ("tokenizer.json", "words.txt")  # what the weights' token ids mean
_MODEL = "model.safetensors"  # in a checkpoint


def keep_weights(run_dir: Path, step: int) -> dict[str, Any]:
    """Copy the weights out of the checkpoint of `step`; what the record says of them.

    Raises:
        Mt2stError: that checkpoint is missing or damaged.
    """
    checkpoints = run_dir / CHECKPOINTS
    found = newest_checkpoint(checkpoints)
    if found is None or found[1]["step"] != step:
        raise Mt2stError(f"{checkpoints} holds no whole checkpoint of step {step}; repeat the command")
    path = run_dir / WEIGHTS_FILE
    with atomic_path(path) as partial:
        shutil.copyfile(found[0] / _MODEL, partial)
    return {"file": WEIGHTS_FILE, "sha256": found[1]["files"][_MODEL], "bytes": path.stat().st_size}


def drop_checkpoints(run_dir: Path) -> None:
    """Delete the checkpoints of a run that has finished."""
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)


@dataclass(frozen=True)
class SourceRun:
    """A finished run whose weights another one starts from.

    Attributes:
        path: its folder, which may have been moved.
        values: its record.
        weights: file of its final weights.
        weights_hash: SHA-256 (hex) of that file, as the record or the checkpoint's seal says.
    """

    path: Path
    values: dict[str, Any]
    weights: Path
    weights_hash: str

    @property
    def identity(self) -> dict[str, str]:
        """What decides the numbers of a run that starts here: hashes of the weights and of what token ids mean."""
        texts = {name: file_hash(self.path / name) for name in TEXT_FILES if (self.path / name).is_file()}
        return {"weights": self.weights_hash, **texts}

    @property
    def chain(self) -> list[str]:
        """Ids of the runs that led to these weights, the first one first."""
        return [*self.values.get("init_from", {}).get("chain", []), self.values["run_id"]]

    @property
    def training_flops(self) -> int:
        """What these weights cost: training FLOPs of this run, and of those that it started from."""
        return int(self.values["flops"]["total"]) + int(self.values.get("init_from", {}).get("flops", 0))

    @property
    def train_seconds(self) -> float:
        """Seconds of training of this run, and of those that it started from."""
        own = float(self.values.get("phases_seconds", {}).get("train", 0.0))
        return own + float(self.values.get("init_from", {}).get("train_seconds", 0.0))

    def text_file(self, name: str) -> Path | None:
        """A file of `TEXT_FILES`, where this run has it."""
        path = self.path / name
        return path if path.is_file() else None

    def checked_weights(self) -> Path:
        """The file of weights, its content compared with its hash.

        Raises:
            Mt2stError: it is torn or altered.
        """
        if file_hash(self.weights) != self.weights_hash:
            raise Mt2stError(f"{self.weights} does not match its checksum, so it is torn or altered; bring it anew")
        return self.weights


def source_run(folder: str) -> SourceRun:
    """The finished run in `folder`, for `--init-from`. Its folder may have another name than when it ran.

    Raises:
        Mt2stError: no finished run, or none that kept its weights; one line with the cure.
    """
    path = Path(folder)
    cure = (
        "give the folder of a finished run, results/<benchmark>/<recipe>/<run_id>; where that was moved, repeat the "
        "command with its new place: equal weights make equal runs"
    )
    if not path.is_dir():
        raise Mt2stError(f"init_from = {folder!r} is no folder; {cure}")
    record = path / RECORD_FILE
    if not record.is_file():
        raise Mt2stError(f"init_from = {folder!r} holds no {RECORD_FILE} of a finished run; {cure}")
    values = read_sealed_json(record, cure)
    verify_values(record, values)
    if values["status"] != "finished":
        raise Mt2stError(f"init_from = {folder!r} is {values['status']}; python -m benchmarks resume {folder} ends it")
    weights, digest = _weights_of(path, values)
    return SourceRun(path, values, weights, digest)


def final_weights(run_dir: Path) -> tuple[Path, str]:
    """File and SHA-256 (hex) of a finished run's weights.

    Raises:
        Mt2stError: it kept none, or they are damaged.
    """
    values = read_sealed_json(run_dir / RECORD_FILE, "repeat the suite's command")
    path, digest = _weights_of(run_dir, values)
    return SourceRun(run_dir, values, path, digest).checked_weights(), digest


def _weights_of(path: Path, values: dict[str, Any]) -> tuple[Path, str]:
    """The weights that the record names; of runs that have kept their checkpoints, those of the last step."""
    listing = values.get("weights")
    if isinstance(listing, dict) and listing.get("file") == WEIGHTS_FILE and isinstance(listing.get("sha256"), str):
        if not (path / WEIGHTS_FILE).is_file():
            raise Mt2stError(
                f"{path / WEIGHTS_FILE} is missing though {RECORD_FILE} lists it; bring it back, or delete the run's "
                "folder and repeat the suite's command"
            )
        return path / WEIGHTS_FILE, listing["sha256"]
    return _in_checkpoint(path, values["steps"])


@lru_cache(maxsize=64)  # a suite asks for each of its runs, and finding reads the whole checkpoint
def _in_checkpoint(path: Path, steps: int) -> tuple[Path, str]:
    damage: list[str] = []
    found = newest_checkpoint(path / CHECKPOINTS, damage.append)
    if found is None or found[1]["step"] != steps:
        why = damage[0] if damage else f"it has no {WEIGHTS_FILE}, and no checkpoint of step {steps}"
        raise Mt2stError(
            f"{path} has kept no whole weights ({why}); bring them back, or delete the run's folder and repeat the "
            "suite's command with --keep weights"
        )
    return found[0] / _MODEL, found[1]["files"][_MODEL]
