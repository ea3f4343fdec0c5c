"""`python -m benchmarks peers training`: this trainer beside the loops that people would otherwise take.

1. `open_clip_train`, and transformers' `Trainer` on its dual encoder of a ViT and a BERT: the same model, first
   weights, photos, batches and AdamW settings, so equal losses; images a second, peak memory. Where preparing data
   counts, they read image files and this trainer its store; with data in memory all get batches that are there.
2. A loop in the manner of LibMTL, which runs every task always, against a step of this trainer after a switch: the
   ratio of FLOPs and that of seconds.

Each measurement runs in a process of its own, the two sides in turn. About 40 minutes on 2 idle cores, a minute with
--smoke. Beside seconds the record has processor seconds, which a busy machine shifts less.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.options import parse_dataclass
from benchmarks.speed.lines import Comparison, Line, in_process, quartiles
from benchmarks.speed.training_setting import DUAL, OPEN_CLIP
from mt2st.errors import Mt2stError, check_range, unknown_name
from mt2st.threads import usable_threads

PARTS = ("losses", "files", "memory", "switch")
TRAINERS = {"open_clip_train": OPEN_CLIP, "transformers": DUAL}
"""other people's loops, and whose towers are trained beside each"""
_WORKER = "benchmarks.speed.training_worker"
_LOADERS = (0, 1, 2)  # processes of their loader that are tried; the fastest is taken


@dataclass(frozen=True)
class Options:
    """Contrastive training beside open_clip's and transformers' loops; a step after a switch beside all tasks'."""

    parts: tuple[str, ...] = PARTS
    """what to measure: losses, files, memory, switch"""
    trainers: tuple[str, ...] = tuple(TRAINERS)
    """beside whose loops: open_clip_train, transformers"""
    pairs: int = 15
    """times that both sides are measured, in turn; quartiles are reported, all are stored"""
    steps: int = 24
    """optimiser steps of each measurement"""
    batch: int = 64
    """images a step"""
    photos: int = 512
    """drawn photos (640×480 JPEG), each with a caption of its own"""
    image_size: int = 64
    """side of what the model sees, in pixels; a multiple of 8"""
    width: int = 128
    """width of both towers, a multiple of 64"""
    layers: int = 4
    """layers of each tower"""
    threads: int = 0
    """processor threads of each; 0 = as many as the process may use"""
    smoke: bool = False
    """a small model, few photos, one pair: for a first look, goals not judged"""
    results: Path = Path("results")
    """folder for the record"""

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise unknown_name("part", part, PARTS)
        for trainer in self.trainers:
            if trainer not in TRAINERS:
                raise unknown_name("trainer", trainer, tuple(TRAINERS))
        for name, low, high in (
            *(("pairs", 1, 1000), ("steps", 6, 100_000), ("batch", 2, 1 << 16), ("photos", 8, 1 << 20)),
            *(("layers", 1, 100), ("threads", 0, 4096)),
        ):
            check_range(f"--{name}", getattr(self, name), low, high)
        if self.width < 64 or self.width % 64:
            raise Mt2stError(f"--width = {self.width} must be a multiple of 64, such as 128")
        if self.image_size < 16 or self.image_size % 8:
            raise Mt2stError(f"--image-size = {self.image_size} must be a multiple of 8 px, such as 64")

    def setting(self, folder: Path) -> dict[str, Any]:
        """What both sides are told, in the smoke form where that is asked for."""
        sizes = (6, 8, 64, 1, 32) if self.smoke else (self.steps, self.batch, self.width, self.layers, self.image_size)
        names = ("steps", "batch", "width", "layers", "image_size")
        threads = self.threads or usable_threads()
        return {"folder": str(folder), "threads": threads, **dict(zip(names, sizes, strict=True))}


def main(argv: list[str]) -> int:
    """Entry point. Returns 0, or 1 if a value differs or a goal is missed."""
    return run(parse_dataclass(Options(), argv, prog="python -m benchmarks peers training"))


def run(options: Options) -> int:
    """Measure, record, print.

    Raises:
        Mt2stError: a package of the comparison is missing, or a measurement failed.
    """
    for package in ("braceexpand", "webdataset", "pandas"):
        if find_spec(package) is None:
            raise Mt2stError(f"open_clip_train needs the package {package}; pip install -e '.[peers]'")
    console = Console()
    title = "Training beside its peers" + (", smoke: too small to judge goals" if options.smoke else "")
    comparison = Comparison("peers training", title, options, options.results)
    pairs = 1 if options.smoke else options.pairs
    with tempfile.TemporaryDirectory(prefix="training-") as name:
        setting = options.setting(Path(name))
        if set(options.parts) - {"switch"}:
            photos = 16 if options.smoke else options.photos
            in_process(_WORKER, "make_photos", {"folder": name, "images": photos})
            place = {"folder": name, "image_size": setting["image_size"]}
            prepared = in_process(_WORKER, "prepare_photos", place) | {"images": photos}
        for trainer in options.trainers:
            told = {**setting, "model": TRAINERS[trainer]}
            if "losses" in options.parts:
                console.print(f"measuring: {trainer}, losses", highlight=False)
                curves = _curves(told)
                comparison.keep(f"{trainer}/losses", curves, loss_lines(trainer, curves))
            for where, goal in (("files", 1.3), ("memory", 1.0)):
                if where in options.parts:
                    console.print(f"measuring: {trainer}, {where}", highlight=False)
                    trimmed = where == "memory" and TRAINERS[trainer] == OPEN_CLIP
                    found = _pairs({**told, "where": where, "warmup": 3}, pairs, trimmed=trimmed)
                    made = prepared if where == "files" else None
                    judged = None if options.smoke else goal
                    lines = rate_lines(trainer, where, found["runs"], judged, made)
                    comparison.keep(f"{trainer}/{where}", {**found, "prepared": made}, lines)
    if "switch" in options.parts:
        console.print("measuring: switch", highlight=False)
        sizing = {"steps": 3 if options.smoke else 40, "warmup": 2 if options.smoke else 5}
        turns = _turns(("switched", "always_both"), sizing | {"threads": setting["threads"]}, pairs)
        comparison.keep("switch", turns, switch_lines(turns))
    return comparison.show(console)


def _curves(setting: Mapping[str, Any]) -> dict[str, list[float]]:
    """The losses of every step: ours, theirs, and theirs from first weights that were moved by one rounding."""
    told = {**setting, "log_every": 1, "where": "files"}
    return {
        "ours": in_process(_WORKER, "ours", told)["losses"],
        "theirs": in_process(_WORKER, "theirs", told)["losses"],
        "nudged": in_process(_WORKER, "theirs", {**told, "nudge": True})["losses"],
    }


def loss_lines(trainer: str, curves: Mapping[str, Sequence[float]]) -> list[Line]:
    """Whether the curves agree: they may differ three times as much as theirs do from themselves after a rounding."""
    theirs = curves["theirs"]
    difference, noise = (_largest_difference(curves[name], theirs) for name in ("ours", "nudged"))
    limit = max(3 * noise, 1e-6)
    what = f"{trainer}: largest relative difference of {len(theirs)} losses"
    return [
        Line(what, f"{difference:.1e}", f"≤ {limit:.1e}", difference <= limit),
        Line(f"{trainer}: the same between two runs of theirs, first weights a rounding apart", f"{noise:.1e}"),
        Line(f"{trainer}: first and last loss", f"{theirs[0]:.4f}, {theirs[-1]:.4f}"),
    ]


def _largest_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    if len(ours) != len(theirs):
        raise Mt2stError(f"one side logged {len(ours)} losses and the other {len(theirs)}; they must be as many")
    return max(abs(one - other) / abs(other) for one, other in zip(ours, theirs, strict=True))


def _pairs(setting: dict[str, Any], pairs: int, *, trimmed: bool) -> dict[str, Any]:
    """Both sides in turn; theirs with the number of loading processes that is fastest in a trial."""
    trials: dict[int, float] = {}
    for workers in _LOADERS if setting["where"] == "files" else (0,):
        trials[workers] = in_process(_WORKER, "theirs", {**setting, "workers": workers})["images_per_second"]
    workers = max(trials, key=trials.__getitem__)
    sides: dict[str, tuple[str, dict[str, Any]]] = {
        "ours": ("ours", setting),
        "theirs": ("theirs", {**setting, "workers": workers}),
    }
    if trimmed:
        sides["ours, texts cut"] = ("ours", {**setting, "trim": True})
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for turn in range(pairs):
        for name in sorted(sides, reverse=bool(turn % 2)):
            task, told = sides[name]
            runs[name].append(in_process(_WORKER, task, told))
    return {"runs": runs, "their_loading_processes": workers, "their_trials_images_per_second": trials}


def _turns(tasks: Sequence[str], arguments: Mapping[str, Any], pairs: int) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    for turn in range(pairs):
        for name in sorted(tasks, reverse=bool(turn % 2)):
            runs[name].append(in_process(_WORKER, name, arguments))
    return runs


def rate_lines(
    trainer: str,
    where: str,
    runs: Mapping[str, list[dict[str, Any]]],
    goal: float | None,
    prepared: Mapping[str, Any] | None,
) -> list[Line]:
    """The table's lines of one setting: rates as ours / theirs, turn by turn, memory, and what preparing costs."""
    what = f"{trainer}, " + {"files": "image files against our store", "memory": "data in memory"}[where]
    ours, theirs = runs["ours"], runs["theirs"]
    ratio = _ratio(ours, theirs)
    met = median(ratio) >= goal if goal else None
    peak = {name: median([run["peak_bytes"] for run in runs[name]]) / 1e6 for name in ("ours", "theirs")}
    lines = [
        Line(f"{what}: images/s, ours / theirs", quartiles(ratio), f"≥ {goal}" if goal else "", met),
        Line(
            f"{what}: their processor seconds / ours, without loading processes",
            quartiles(_ratio(ours, theirs, "processor_seconds_per_step")),
        ),
        Line(f"{what}: images/s, ours", quartiles([run["images_per_second"] for run in ours], 0)),
        Line(f"{what}: images/s, theirs", quartiles([run["images_per_second"] for run in theirs], 0)),
        Line(f"{what}: peak MB, ours / theirs", f"{peak['ours']:.0f} / {peak['theirs']:.0f}"),
    ]
    if cut := runs.get("ours, texts cut"):
        lines.append(Line(f"{what}: the same ratio, our texts cut to the longest", quartiles(_ratio(cut, theirs))))
    if prepared:
        each = prepared["seconds"] / prepared["images"]
        saved = [1 / other["images_per_second"] - 1 / mine["images_per_second"] for mine, other in zip(ours, theirs)]
        after = f"{each / median(saved):.1f} epochs" if median(saved) > 0 else "never"
        lines.append(Line(f"{what}: ms to prepare a photo once; paid back after", f"{1000 * each:.1f} ms; {after}"))
    return lines


def switch_lines(turns: Mapping[str, list[dict[str, Any]]]) -> list[Line]:
    """The table's lines of a step after a switch, beside one that runs all tasks always."""
    ours, both = turns["switched"], turns["always_both"]
    flops = both[0]["flops_per_step"] / ours[0]["flops_per_step"]
    return [
        Line("after a switch: FLOPs of a step that runs all tasks / of ours", f"{flops:.2f}", "> 1", flops > 1),
        Line("after a switch: the same for seconds", quartiles(_ratio(ours, both))),
        Line(
            "after a switch: the same for processor seconds",
            quartiles(_ratio(ours, both, "processor_seconds_per_step")),
        ),
    ]


def _ratio(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], key: str = "seconds_per_step"
) -> list[float]:
    """How many times as long theirs took, turn by turn."""
    return [other[key] / mine[key] for mine, other in zip(ours, theirs, strict=True)]
