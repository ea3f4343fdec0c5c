"""`python -m benchmarks peers evaluate`: our evaluation of a model without training beside CLIP_benchmark 1.6.2.

Both start from a checkpoint of open_clip and JPEG files, and end with metrics. The model has random weights; the files
are drawn. Each measurement runs in a process of its own, ours and theirs in turn, with the same number of threads and
one thread or process that decodes. Generation is measured beside a bare loop over `generate`. About 5 minutes on 2
idle cores, a minute with --smoke.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.options import parse_dataclass
from benchmarks.speed.evaluate_worker import GENERATION, make_inputs
from benchmarks.speed.lines import Comparison, Line, in_process, quartiles
from mt2st.errors import Mt2stError, check_range, unknown_name
from mt2st.threads import usable_threads

PARTS = ("retrieval", "zero-shot", GENERATION)


@dataclass(frozen=True)
class Options:
    """Evaluation without training beside CLIP_benchmark and a bare generate loop: the same numbers, and time."""

    parts: tuple[str, ...] = PARTS
    """what to measure: retrieval, zero-shot, generation"""
    images: int = 200
    """drawn photos (640×480 JPEG), each with five captions and a label"""
    width: int = 256
    """width of both towers, a multiple of 64"""
    layers: int = 6
    """layers of each tower"""
    repetitions: int = 5
    """times that each is measured, in turn; quartiles are reported, all are stored"""
    threads: int = 0
    """processor threads of each; 0 = as many as the process may use"""
    smoke: bool = False
    """a small model, few photos, two repetitions: for a first look, goals not judged"""
    results: Path = Path("results")
    """folder for the record"""

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise unknown_name("part", part, PARTS)
        for name, low, high in (
            ("images", 20, 1 << 20),
            ("layers", 1, 100),
            ("repetitions", 1, 100),
            ("threads", 0, 4096),
        ):
            check_range(f"--{name}", getattr(self, name), low, high)
        if self.width < 64 or self.width % 64:
            raise Mt2stError(f"--width = {self.width} must be a multiple of 64, such as 256")


def main(argv: list[str]) -> int:
    """Entry point. Returns 0, or 1 if a value differs or a goal is missed."""
    return run(parse_dataclass(Options(), argv, prog="python -m benchmarks peers evaluate"))


def run(options: Options) -> int:
    """Measure, record, print.

    Raises:
        Mt2stError: CLIP_benchmark is missing, or a measurement failed.
    """
    if find_spec("clip_benchmark") is None:
        raise Mt2stError("the package clip-benchmark is missing; pip install -e '.[peers]'")
    console = Console()
    sizes = (40, 64, 1, 2) if options.smoke else (options.images, options.width, options.layers, options.repetitions)
    images, width, layers, repetitions = sizes
    threads = options.threads or usable_threads()
    title = f"Evaluation without training beside CLIP_benchmark; {threads} threads each"
    found = Comparison("peers evaluate", title, options, options.results)
    with tempfile.TemporaryDirectory(prefix="evaluate-") as name:
        place = Path(name)
        make_inputs(place, images, width, layers)
        for part in options.parts:
            console.print(f"measuring: {part}", highlight=False)
            runs: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
            for turn in range(repetitions):
                for who in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
                    arguments = {"place": str(place), "who": who, "threads": threads}
                    runs[who].append(in_process("benchmarks.speed.evaluate_worker", part, arguments))
                shutil.rmtree(place / "data", ignore_errors=True)  # so that every turn prepares
            lines_of = generation_lines if part == GENERATION else part_lines
            found.keep(part, runs, lines_of(f"{part}, {images} photos", runs, judge=not options.smoke))
    return found.show(console)


def part_lines(what: str, runs: dict[str, list[dict[str, Any]]], *, judge: bool) -> list[Line]:
    """The table's lines of one part: agreement of the metrics, then times as theirs / ours, turn by turn."""
    ours, theirs = runs["ours"], runs["theirs"]
    peer = theirs[0]["metrics"]
    largest = max(abs(ours[0]["metrics"][name] - value) for name, value in peer.items())
    whole = [other["seconds"] / (mine["seconds"] + mine["prepare_seconds"]) for mine, other in zip(ours, theirs)]
    again = [other["seconds"] / mine["seconds"] for mine, other in zip(ours, theirs)]
    met = bool(np.median(whole) >= 1.0) if judge else None
    return [
        Line(f"{what}: largest difference of {len(peer)} metrics", f"{largest:.1e}", "≤ 1e-6", largest <= 1e-6),
        Line(f"{what}: times faster end to end, with preparing", quartiles(whole), "≥ 1" if judge else "", met),
        Line(f"{what}: times faster, data prepared before", quartiles(again)),
        Line(f"{what}: seconds ours", quartiles([mine["seconds"] + mine["prepare_seconds"] for mine in ours])),
        Line(f"{what}: seconds CLIP_benchmark", quartiles([other["seconds"] for other in theirs])),
    ]


def generation_lines(what: str, runs: dict[str, list[dict[str, Any]]], *, judge: bool) -> list[Line]:
    """The table's lines of generation: equal answers, and our throughput over that of a bare loop, turn by turn."""
    ours, bare = runs["ours"], runs["theirs"]
    equal = sum(mine == other for mine, other in zip(ours[0]["answers"], bare[0]["answers"], strict=True))
    count = len(bare[0]["answers"])
    ratio = [other["seconds"] / mine["seconds"] for mine, other in zip(ours, bare)]
    met = bool(np.median(ratio) >= 0.95) if judge else None
    return [
        Line(f"{what}: equal answers", f"{equal} of {count}", f"{count}", equal == count),
        Line(f"{what}: throughput over a bare generate loop", quartiles(ratio), "≥ 0.95" if judge else "", met),
        Line(f"{what}: answers a second", quartiles([count / mine["seconds"] for mine in ours])),
    ]
