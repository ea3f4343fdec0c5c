"""Reading the records of a recipe: every run is either loaded and verified, or named with the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from benchmarks.records.check import CONFIG_FILE, RECORD_FILE, verify_record
from benchmarks.records.folder import RunFolder
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import content_hash, read_sealed_json


@dataclass(frozen=True)
class RunRecord:
    """One ended run: run.json, verified.

    Attributes:
        folder: the run's folder.
        values: run.json. Beside the identity (benchmark, recipe, strategy, view, seed, config, config_hash,
            suite_hash): status: "finished" | "failed" | "interrupted", with `why` views: views the run counts for, of
            "equal-steps" and "equal-budget" steps, samples; phases_seconds {train, evaluate, …}; peak_memory_bytes,
            gpu_peak_memory_bytes flops {total, by_task {task: {forward, backward}}, primary_per_step, by_active_set}:
            training FLOPs, 1 multiply-add = 2 metrics {validation: {id: value}, test: {id: value}}; floors {name: {id:
            value}} curve [{step, flops, seconds, metric id: value, …}]: validation during training group_names {item
            array: [name of code 0, …]}: what codes in item arrays mean commit, versions, hardware, data {name,
            revision, content_hash}, model {parameters, …}
    """

    folder: Path
    values: Mapping[str, Any]

    @property
    def strategy(self) -> str:
        return self.values["strategy"]

    @property
    def seed(self) -> int:
        return self.values["seed"]

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self.values["views"])

    @property
    def status(self) -> str:
        return self.values["status"]

    @property
    def why(self) -> str:
        return self.values["why"]

    @property
    def steps(self) -> int:
        return self.values["steps"]

    @property
    def training_flops(self) -> float:
        """Forward + backward of everything run for training, evaluation excluded."""
        return float(self.values["flops"]["total"])

    @property
    def curve(self) -> list[dict[str, Any]]:
        return self.values.get("curve", [])

    def metric(self, metric_id: str, split: str = "test") -> float | None:
        """A metric of `split` by id; None where the run has none."""
        value = self.values.get("metrics", {}).get(split, {}).get(metric_id)
        return None if value is None else float(value)

    @cached_property
    def items(self) -> dict[str, np.ndarray]:
        """Per-item arrays on the test split: name → array.

        Read when first asked for, and checked against the record again.

        Raises:
            Mt2stError: the file is not what the record says.
        """
        listing = self.values["items"]
        if not listing:
            return {}
        path = self.folder / listing["file"]
        try:
            arrays = load(path.read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise Mt2stError(f"{path} cannot be read ({error}); run the same command again") from error
        for name, described in listing["arrays"].items():
            if name not in arrays or list(arrays[name].shape) != described["shape"]:
                raise Mt2stError(
                    f"{path}: array {name!r} is not the one that run.json lists; run the same command again"
                )
        return arrays


@dataclass(frozen=True)
class Hole:
    """A run that gives no numbers.

    Attributes: folder; strategy ("" if unknown), seed, views; kind; why, in one line.
    """

    folder: Path
    kind: str  # "failed" | "interrupted" | "unfinished" | "damaged"
    why: str
    strategy: str = ""
    seed: int | None = None
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class Records:
    """All runs of a recipe's suite: those that finished, and the holes, each with its reason.

    Attributes:
        finished: verified runs, by strategy, view and seed.
        holes: failed, interrupted, unfinished and damaged runs.
        suite_hash: the suite they belong to.
        other_suites: suite hash → number of runs of other suites in the same folder, which are not in here.
    """

    finished: tuple[RunRecord, ...]
    holes: tuple[Hole, ...]
    suite_hash: str = ""
    other_suites: Mapping[str, int] | None = None


def load_records(root: Path, benchmark: str, recipe: str, *, suite_hash: str | None = None) -> Records:
    """Read and verify every run of `root/benchmark/recipe`.

    Seals and item hashes are checked. A damaged run is a hole with its reason, never dropped. Runs of another suite
    (other knobs under the same recipe's name) are left out and counted in `other_suites`.

    Args:
        suite_hash: which suite, by its first digits; None = that of the run that started last.

    Raises:
        Mt2stError: the folder or the suite does not exist, or nothing is in it; the message names what exists.
    """
    folder = _recipe_folder(root, benchmark, recipe)
    runs: list[RunRecord] = []
    holes: list[tuple[Hole, Mapping[str, Any]]] = []
    for path in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        if not ((path / CONFIG_FILE).exists() or (path / RECORD_FILE).exists()):
            continue
        try:
            outcome = _read_run(path)
        except Mt2stError as error:
            known = _identity_or_nothing(path)
            holes.append((_hole(path, "damaged", str(error), known), known))
            continue
        if isinstance(outcome, RunRecord):
            runs.append(outcome)
        else:
            holes.append((outcome, _identity_or_nothing(path)))
    if not runs and not holes:
        raise Mt2stError(f"{folder} holds no runs; start some with: python -m benchmarks {benchmark} --recipe {recipe}")
    chosen = _choose_suite(folder, runs, [known for _, known in holes], suite_hash)
    others: dict[str, int] = {}
    for suite in [run.values["suite_hash"] for run in runs] + [known.get("suite_hash", chosen) for _, known in holes]:
        if suite != chosen:
            others[suite] = others.get(suite, 0) + 1
    finished = [run for run in runs if run.values["suite_hash"] == chosen]
    finished.sort(key=lambda run: (run.strategy, run.values["view"], run.seed))
    mine = tuple(hole for hole, known in holes if known.get("suite_hash", chosen) == chosen)
    return Records(tuple(finished), mine, chosen, others)


def _recipe_folder(root: Path, benchmark: str, recipe: str) -> Path:
    if not root.is_dir():
        raise Mt2stError(
            f"results folder {root} does not exist; run a benchmark first, or name the folder with --results"
        )
    for place, kind, name in (
        (root, "benchmark with results", benchmark),
        (root / benchmark, "recipe with results", recipe),
    ):
        if not (place / name).is_dir() or not name.strip("."):
            known = [entry.name for entry in place.iterdir() if entry.is_dir()]
            raise unknown_name(kind, name, known, cure=f"Looked in {place}.")
    return root / benchmark / recipe


def _read_run(path: Path) -> RunRecord | Hole:
    record_path = path / RECORD_FILE
    if not record_path.exists():
        run = RunFolder.existing(path)
        owner = run.owner()
        why = (
            f"still running: {owner}"
            if owner
            else f"stopped without a record; resume with: python -m benchmarks resume {path}"
        )
        return _hole(path, "unfinished", why, run.identity)
    values = read_sealed_json(record_path, "run the same command again")
    verify_record(path, values)
    if values["status"] == "finished":
        return RunRecord(path, values)
    return _hole(path, str(values["status"]), str(values["why"]), values)


def _hole(path: Path, kind: str, why: str, known: Mapping[str, Any]) -> Hole:
    views = known.get("views") or ([known["view"]] if "view" in known else [])
    return Hole(path, kind, why, str(known.get("strategy", "")), known.get("seed"), tuple(str(view) for view in views))


def _identity_or_nothing(path: Path) -> Mapping[str, Any]:
    """Whatever of the two sealed files is whole, for the reason's sake: strategy, seed, suite."""
    for name in (RECORD_FILE, CONFIG_FILE):
        try:
            known = read_sealed_json(path / name, "")
        except Mt2stError:
            continue
        kinds = {"suite_hash": str, "started_utc": str, "strategy": str, "view": str, "seed": int, "views": list}
        return {key: known[key] for key, kind in kinds.items() if isinstance(known.get(key), kind)}
    return {}


def _choose_suite(folder: Path, runs: list[RunRecord], others: list[Mapping[str, Any]], wanted: str | None) -> str:
    started: dict[str, str] = {}
    for values in [run.values for run in runs] + [known for known in others if "suite_hash" in known]:
        suite = values["suite_hash"]
        started[suite] = max(started.get(suite, ""), str(values.get("started_utc", "")))
    if wanted is not None:
        matching = [suite for suite in started if suite.startswith(wanted)]
        if len(matching) != 1:
            raise unknown_name("suite", wanted, [suite[:8] for suite in started], cure=f"Looked in {folder}.")
        return matching[0]
    return max(started, key=lambda suite: (started[suite], suite), default=content_hash(None))
