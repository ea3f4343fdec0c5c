"""Is there room for a suite before it starts? A disk that fills half-way costs hours; this costs a millisecond."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from benchmarks.records.folder import RunFolder
from mt2st.errors import Mt2stError

RECORD_BYTES = 8 << 20  # record, per-item results, log, embeddings and pictures of a run, generously


def require_space(
    results: Path, folders: Iterable[RunFolder], one_checkpoint: int, retention: int, *, kept: int, at_once: int
) -> int:
    """Raise unless the runs that are not finished fit on the disk of `results`; returns the estimate in bytes.

    Args:
        folders: the planned runs; what a started one has written already is not counted again.
        one_checkpoint: bytes of a checkpoint.
        retention: checkpoints of a run in work; while a new one is written there is one more.
        kept: bytes of what a finished run keeps of its model.
        at_once: runs in work at the same time.

    Raises:
        Mt2stError: too little space; the message holds the estimate, what is free, and what to change.
    """
    unfinished = [folder for folder in folders if folder.state() != "finished"]
    in_work = min(at_once, len(unfinished)) * max(0, (retention + 1) * one_checkpoint - kept)
    needed = sum(max(0, kept + RECORD_BYTES - _bytes_in(folder.path)) for folder in unfinished) + in_work
    place = next(folder for folder in (results.absolute(), *results.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise Mt2stError(
            f"{len(unfinished)} runs in {results} need about {_text(needed)} ({_text(kept)} of weights and "
            f"{_text(RECORD_BYTES)} of records each, {retention + 1} checkpoints of {_text(one_checkpoint)} while in "
            f"work), but {_text(free)} are free; make room, choose another disk with --results, keep less (--keep "
            "nothing), or plan fewer runs (--seeds, --strategies, --views) or a smaller model (--encoder.width)"
        )
    return needed


def _bytes_in(folder: Path) -> int:
    """Bytes of the files below `folder`, 0 if there is none.

    Files that vanish meanwhile (another process's) count nothing.
    """
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue
    return total


def _text(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
