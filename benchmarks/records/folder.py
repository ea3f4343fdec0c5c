"""A run is a folder: `results/<benchmark>/<recipe>/<run_id>/`.

One process writes it; anyone can read it at any instant.

    config.json        who this run is: benchmark, recipe, strategy, view, seed, configuration, hash (sealed; first)
    metrics.jsonl      what was logged while training
    items.safetensors  per-item results on the test split (before run.json, which lists its SHA-256)
    run.json           the record (sealed; last: where it is, the run has ended)
    lock, lock.owner   the lock, and who holds it
    checkpoints/, log.txt   the runner's

Tables and plots derive from run.json and items.safetensors alone; see `load_records`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save

from benchmarks.records.check import (
    CHECKPOINTS,
    CONFIG_FILE,
    FINISHED_NEEDS,
    IDENTITY,
    ITEMS_FILE,
    LOG_FILE,
    RECORD_CURE,
    RECORD_FILE,
    SCHEMA_VERSION,
    verify_record,
)
from benchmarks.records.lock import RunLock, lock_owner
from benchmarks.records.metrics_log import append_metrics, plain, read_metrics, truncate_metrics
from mt2st.errors import Mt2stError
from mt2st.files import PARTIAL_SUFFIX, content_hash, file_hash, read_sealed_json, write_bytes, write_sealed_json

DAMAGED_SUFFIX = ".damaged"
State = Literal["new", "unfinished", "finished", "damaged"]
Status = Literal["finished", "failed", "interrupted"]

_CONFIG_CURE = "run the same command again: it writes the file anew"


def slug(text: str) -> str:
    """Lower-case letters, digits and single dashes: "Early Stop" → "early-stop"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def run_id(strategy: str, view: str, seed: int, config: Mapping[str, Any]) -> str:
    """`<strategy>-<view>-s<seed>-<first 8 hex digits of the configuration's hash>`, such as
    "switch-budget-0-44-s0-1f3a5c7e".
    """
    return f"{slug(strategy)}-{slug(view)}-s{seed}-{config_hash(config)[:8]}"


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the configuration's canonical JSON (sorted keys; numpy numbers and paths as plain values)."""
    return content_hash(plain(config, "configuration"))


class RunFolder:
    """The folder of one run. Reading needs no lock; writing needs `with folder.lock():` around it.

    Args:
        path: the folder, which `RunFolder.of` derives from who the run is.
        identity: what config.json holds; None for a folder that exists (see `RunFolder.existing`).
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity: dict[str, Any] = dict(identity)
        self._lock: RunLock | None = None

    @classmethod
    def of(
        cls,
        root: Path,
        benchmark: str,
        recipe: str,
        *,
        strategy: str,
        view: str,
        seed: int,
        config: Mapping[str, Any],
        suite: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """The folder of the run that these words describe; nothing is written yet.

        Args:
            root: the results folder.
            config: everything that decides the run's numbers (knobs, data hash, derived steps): equal configuration,
                equal run.
            suite: what the compared runs have in common, without strategy, seed and derived steps. Reports never mix
                runs of different suites in one folder. None = `config` itself.
            conditions: what else a resume must know (where data lie, threads that make batches), which changes no
                number and so is no part of the hash.
        """
        for name, value in (("benchmark", benchmark), ("recipe", recipe)):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
                raise Mt2stError(
                    f"{name} = {value!r} becomes a folder's name; use letters, digits, '-', '_' and '.' only"
                )
        if not slug(strategy) or not slug(view):
            raise Mt2stError(
                f"strategy = {strategy!r} and view = {view!r} name the run's folder; each needs a letter or digit"
            )
        plain_config = plain(config, "configuration")
        identity = {
            "run_id": run_id(strategy, view, seed, config),
            "benchmark": benchmark,
            "recipe": recipe,
            "strategy": strategy,
            "view": view,
            "seed": int(seed),
            "config": plain_config,
            "config_hash": content_hash(plain_config),
            "suite_hash": config_hash(plain_config if suite is None else suite),
            "conditions": plain(conditions or {}, "conditions"),
        }
        return cls(root / benchmark / recipe / identity["run_id"], identity)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of a run that was started before (`python -m benchmarks resume RUN_DIR`).

        Raises:
            Mt2stError: `path` is no run folder, or its config.json is damaged.
        """
        if not path.is_dir():
            raise Mt2stError(f"{path} is no folder; give a run's folder, results/<benchmark>/<recipe>/<run_id>")
        identity = read_sealed_json(path / CONFIG_FILE, "give a run's folder, or repeat the run by its command")
        if missing := [name for name in IDENTITY if name not in identity]:
            raise Mt2stError(f"{path / CONFIG_FILE} lacks {', '.join(missing)}; repeat the run by its command")
        return cls(path, identity)

    @property
    def name(self) -> str:
        """The run's id, which is the folder's name."""
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        """Folder for the trainer's checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def log(self) -> Path:
        """Text file for tracebacks."""
        return self.path / "log.txt"

    # -- state ---------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """What is in the folder.

        new = nothing written yet · unfinished = started, interrupted or failed · finished · damaged (see `damage`).
        """
        if self.damage():
            return "damaged"
        if not (self.path / CONFIG_FILE).exists():
            return "new"
        return "finished" if self.status() == "finished" else "unfinished"

    def status(self) -> Status | None:
        """Status in run.json; None while there is none."""
        value = self._record()
        return None if value is None else value["status"]

    def _record(self) -> dict[str, Any] | None:
        path = self.path / RECORD_FILE
        if not path.exists():
            return None
        try:
            return read_sealed_json(path, RECORD_CURE)
        except Mt2stError:
            if path.exists():
                raise
            return None  # its writer took it back between the two looks: a failed attempt begins again

    def damage(self) -> list[str]:
        """What is torn, altered or foreign in this folder, one line for each file; empty when all is well."""
        found = []
        for check in (self._check_config, self._check_record):
            try:
                check()
            except Mt2stError as error:
                found.append(str(error))
        return found

    def repair(self) -> list[str]:
        """Set damaged files aside (suffix `.damaged`), so that the run starts again from its last good checkpoint.

        A good config.json that describes another run is never touched: that is an error, for two runs would share a
        folder. Needs the lock. Returns what was damaged.
        """
        self._need_lock("repair")
        found = []
        checks = ((CONFIG_FILE, self._check_config), (RECORD_FILE, self._check_record), (LOG_FILE, self.metrics))
        for name, check in checks:
            try:
                check()
            except _ForeignConfigError:
                raise
            except Mt2stError as error:
                found.append(str(error))
                (self.path / name).replace(self.path / (name + DAMAGED_SUFFIX))
        return found

    def _check_config(self) -> None:
        path = self.path / CONFIG_FILE
        if not path.exists():
            if (self.path / RECORD_FILE).exists():
                return  # run.json repeats the whole identity
            return
        found = read_sealed_json(path, _CONFIG_CURE)
        for key in ("config_hash", "strategy", "seed", "view"):
            if found.get(key) != self.identity[key]:
                raise _ForeignConfigError(
                    f"{path} describes another run ({key} = {found.get(key)!r}, not {self.identity[key]!r}); "
                    "move that folder away, or use another results folder"
                )

    def _check_record(self) -> None:
        if (value := self._record()) is not None:
            verify_record(self.path, value)

    # -- lock ----------------------------------------------------------------------------------------------------------

    def lock(
        self, *, wait_seconds: float = 0.0, on_wait: Callable[[str], None] | None = None
    ) -> AbstractContextManager[RunLock]:
        """Exclusive right to write here; see `RunLock`.

        After waiting look at `state()` again: the other may have finished.
        """
        self._lock = RunLock(self.path / "lock", wait_seconds=wait_seconds, on_wait=on_wait)
        return self._lock

    def owner(self) -> str:
        """Who is writing here now; "" when nobody is."""
        return lock_owner(self.path / "lock")

    def _need_lock(self, action: str) -> None:
        if self._lock is None or not self._lock.held:
            raise Mt2stError(f"{action}: {self.path} is not locked by this process; write inside `with folder.lock():`")

    # -- writing -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Write config.json unless it is there, and take back the record of a failed or interrupted attempt.

        Needs the lock.

        Raises:
            Mt2stError: the folder is damaged (call `repair`) or finished.
        """
        self._need_lock("begin")
        if found := self.damage():
            raise Mt2stError(found[0])
        if self.status() == "finished":
            raise Mt2stError(f"{self.path} is finished; delete the folder to repeat the run")
        # Left by a killed attempt; nobody else writes below here.
        for leftover in list(self.path.rglob(f".*{PARTIAL_SUFFIX}")):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        self.announce()
        (self.path / RECORD_FILE).unlink(missing_ok=True)

    def announce(self) -> None:
        """Write config.json, from which `python -m benchmarks resume` knows the run. Needs the lock.

        One that is there is written anew only when conditions have changed, such as the place of the data.
        """
        self._need_lock("announce")
        path = self.path / CONFIG_FILE
        if not path.exists() or read_sealed_json(path, _CONFIG_CURE).get("conditions") != self.identity["conditions"]:
            write_sealed_json(path, self.identity)

    def finish(self, record: Mapping[str, Any], items: Mapping[str, np.ndarray]) -> None:
        """Write the per-item arrays, then the record that lists their hash. Needs the lock.

        Args:
            record: see `RunRecord`; this folder's identity, status, schema version and end time are added.
            items: name → array [n_items, …] of numbers or bools on the test split; all of one group share n_items.

        Raises:
            Mt2stError: a field that a finished record needs is missing, or an array is of a kind that safetensors
                lacks.
        """
        if missing := [name for name in FINISHED_NEEDS if name not in record]:
            raise Mt2stError(
                f"finish: the record of {self.name} lacks {', '.join(missing)}; a finished run has them all"
            )
        self._write(record, "finished", "", items)

    def serve(self, views: Sequence[str], looks: Sequence[int] = ()) -> None:
        """Let a finished run count for these views as well, and for a suite that looks at these numbers of seeds.

        A later command may plan a run that is there already for more than the one that made it. Takes the lock where
        something is to be written, and leaves the record alone where it lacks nothing.

        Raises:
            LockedError: another process writes here.
        """
        value = self._record()
        if value is None:
            return
        new = [view for view in views if view not in value["views"]]
        if not new and (not looks or value.get("looks")):
            return
        with self.lock():
            record = {**value, "views": [*value["views"], *new]}
            if looks and not value.get("looks"):
                record["looks"] = list(looks)
            write_sealed_json(self.path / RECORD_FILE, record)

    def fail(self, record: Mapping[str, Any], why: str) -> None:
        """Record that the run failed and why, in one line; what `record` already knows is kept. Needs the lock."""
        self._write(record, "failed", " ".join(why.split()) or "no reason was given", {})

    def interrupt(self, record: Mapping[str, Any], why: str = "interrupted") -> None:
        """Record that the run was stopped from outside (Ctrl-C, SIGTERM) and can be resumed. Needs the lock."""
        self._write(record, "interrupted", " ".join(why.split()), {})

    def _write(self, record: Mapping[str, Any], status: Status, why: str, items: Mapping[str, np.ndarray]) -> None:
        self._need_lock(status)
        value = {
            **plain(record, f"record of {self.name}"),
            **self.identity,
            "schema_version": SCHEMA_VERSION,
            "status": status,
            "why": why,
            "ended_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "items": {},
        }
        value.setdefault("views", [self.identity["view"]])
        if items:
            value["items"] = self._write_items(items)
        write_sealed_json(self.path / RECORD_FILE, value)

    def _write_items(self, items: Mapping[str, np.ndarray]) -> dict[str, Any]:
        arrays = {}
        for name in sorted(items):
            array = np.ascontiguousarray(items[name])
            if array.dtype.kind not in "biuf":
                raise Mt2stError(f"items[{name!r}] of {self.name} is {array.dtype}; record numbers or bools only")
            arrays[name] = array
        path = self.path / ITEMS_FILE
        write_bytes(path, save(arrays))
        listing = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()}
        return {"file": ITEMS_FILE, "sha256": file_hash(path), "bytes": path.stat().st_size, "arrays": listing}

    # -- log -----------------------------------------------------------------------------------------------------------

    def append_metrics(self, **values: Any) -> None:
        """Append one line to metrics.jsonl (needs `step` if a resume is to cut it right). Needs the lock."""
        self._need_lock("append_metrics")
        append_metrics(self.path / LOG_FILE, values)

    def write_log(self, text: str) -> None:
        """Append to log.txt."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(text)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_metrics(self.path / LOG_FILE)

    def truncate_metrics(self, step: int) -> int:
        """Drop the lines after `step`; returns how many. Needs the lock."""
        self._need_lock("truncate_metrics")
        return truncate_metrics(self.path / LOG_FILE, step)


class _ForeignConfigError(Mt2stError):
    """config.json is whole but describes another run."""
