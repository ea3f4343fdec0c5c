"""Reading the records of a recipe: every run is either loaded and verified, or named with the reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from benchmarks.records.check import CONFIG_FILE, RECORD_FILE, verify_record
from benchmarks.records.folder import RunFolder
from benchmarks.records.pack import PACK_FILE, PackedSuite, read_pack
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import content_hash, read_sealed_json


@dataclass(frozen=True)
class RunRecord:
    """One ended run: run.json, verified.

    Attributes:
        folder: the run's folder; where a pack holds the run, the folder need not exist.
        values: run.json. Who the run is (run_id, benchmark, recipe, strategy, view, seed, config, config_hash,
            suite_hash), and:

            - status: "finished", "failed" or "interrupted", with `why`
            - views: those that the run counts for, such as "equal-steps" and "budget-0.44"
            - steps, samples; phases_seconds {train, test, …}; peak_memory_bytes, gpu_peak_memory_bytes
            - flops {total, by_task {task: {forward, backward}}, …}: training FLOPs, 1 multiply-add = 2; validation and
              optimiser, which are in none of the others
            - metrics {validation: {id: value}, test: {id: value}}; floors {name: {id: value}}
            - curve [{step, flops, seconds, metric id: value, …}]: validation during training
            - group_names {item array: [name of code 0, …]}: what codes in item arrays mean
            - schedules {auxiliary: its schedule as text}
            - init_from {run_id, flops, train_seconds, chain, taken_parameters, new, …}: the run whose weights it
              started from, and what that one and its own predecessors cost; weights {file, sha256, bytes}: what it kept
            - warnings: signs that the run learned nothing, as text
            - commit, versions, hardware, data {name, revision, content_hash}; model {parameters, trained [{group,
              parameters, learning_rate}], …}
        pack: the pack that holds the per-item arrays; None = they lie in the folder.
    """

    folder: Path
    values: Mapping[str, Any]
    pack: PackedSuite | None = None

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

        Read or unpacked when first asked for, and checked against the record again.

        Raises:
            Mt2stError: the file is not what the record says.
        """
        if self.pack is not None:
            return self.pack.items(self.values["run_id"])
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
    """Read and verify every run of `root/benchmark/recipe`: run folders, and the pack `runs.zip` beside them if any.

    Seals and item hashes are checked. A damaged run is a hole with its reason, never dropped. Runs of another suite
    (other knobs under the same recipe's name) are left out and counted in `other_suites`.

    A run may be in both: it comes from its folder if it is finished there, else from the pack if it is finished in
    that, else the folder says why it is a hole.

    Args:
        suite_hash: which suite, by its first digits; None = that of the run that started last.

    Raises:
        Mt2stError: the folder or the suite does not exist, nothing is in it, or the pack is damaged; the message names
            what exists, or the cure.
    """
    folder = _recipe_folder(root, benchmark, recipe)
    found = _packed_runs(folder)
    for path in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        if not ((path / CONFIG_FILE).exists() or (path / RECORD_FILE).exists()):
            continue
        outcome, known = _read_run(path)
        if isinstance(outcome, RunRecord) or not isinstance(found.get(path.name, (None,))[0], RunRecord):
            found[path.name] = outcome, known
    if not found:
        raise Mt2stError(f"{folder} holds no runs; start some with: python -m benchmarks {benchmark} --recipe {recipe}")
    chosen = _choose_suite(folder, [known for _, known in found.values()], suite_hash)
    suites = [known.get("suite_hash", chosen) for _, known in found.values()]
    mine = [outcome for (outcome, _), suite in zip(found.values(), suites) if suite == chosen]
    finished = [run for run in mine if isinstance(run, RunRecord)]
    finished.sort(key=lambda run: (run.strategy, run.values["view"], run.seed))
    return Records(
        finished=tuple(finished),
        holes=tuple(hole for hole in mine if isinstance(hole, Hole)),
        suite_hash=chosen,
        other_suites=Counter(suite for suite in suites if suite != chosen),
    )


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


Outcome = tuple[RunRecord | Hole, Mapping[str, Any]]  # a run, and what is known of it: suite, start


def _packed_runs(folder: Path) -> dict[str, Outcome]:
    """Run id → run, of the pack in `folder`; empty without a pack."""
    path = folder / PACK_FILE
    if not path.exists():
        return {}
    pack = read_pack(path)
    return {run_id: (_ended(folder / run_id, values, pack), values) for run_id, values in pack.records.items()}


def _read_run(path: Path) -> Outcome:
    record_path = path / RECORD_FILE
    try:
        if not record_path.exists():
            return _without_record(path)
        values = read_sealed_json(record_path, "run the same command again")
        verify_record(path, values)
        return _ended(path, values), values
    except Mt2stError as error:
        known = _identity_or_nothing(path)
        return _hole(path, "damaged", str(error), known), known


def _without_record(path: Path) -> Outcome:
    run = RunFolder.existing(path)
    owner = run.owner()
    resume = f"stopped without a record; resume with: python -m benchmarks resume {path}"
    return _hole(path, "unfinished", f"still running: {owner}" if owner else resume, run.identity), run.identity


def _ended(path: Path, values: Mapping[str, Any], pack: PackedSuite | None = None) -> RunRecord | Hole:
    if values["status"] == "finished":
        return RunRecord(path, values, pack)
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


def _choose_suite(folder: Path, runs: Sequence[Mapping[str, Any]], wanted: str | None) -> str:
    """The suite whose hash begins with `wanted`, or that of the run that started last."""
    started: dict[str, str] = {}
    for known in runs:
        if "suite_hash" in known:
            suite = known["suite_hash"]
            started[suite] = max(started.get(suite, ""), str(known.get("started_utc", "")))
    if wanted is not None:
        matching = [suite for suite in started if suite.startswith(wanted)]
        if len(matching) != 1:
            raise unknown_name("suite", wanted, [suite[:8] for suite in started], cure=f"Looked in {folder}.")
        return matching[0]
    return max(started, key=lambda suite: (started[suite], suite), default=content_hash(None))
