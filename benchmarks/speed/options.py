"""What the measurements of speed can be told. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mt2st.errors import Mt2stError, check_range, unknown_name


@dataclass(frozen=True)
class OverheadOptions:
    """Compare the trainer's loop with a bare loop."""

    blocks: int = 60
    """pairs of blocks to time"""
    steps: int = 10
    """optimiser steps a block"""
    threads: int = 0
    """CPU threads; 0 = as torch chooses"""
    results: Path = Path("results")
    """where the record is written"""


@dataclass(frozen=True)
class StepOptions:
    """Where a step's time goes, and whether seconds show what the FLOPs of a switch save."""

    cases: tuple[str, ...] = ("vqa", "retrieval")
    """cases whose default step is measured"""
    pairs: int = 15
    """pairs of blocks, before and after the switch; quartiles are reported, all are stored"""
    steps: int = 10
    """optimiser steps a block, and steps that are profiled"""
    threads: tuple[int, ...] = (1, 2)
    """numbers of threads, each measured by itself"""
    against: Path | None = None
    """another checkout, such as one of an earlier commit: this one's step is measured beside its step, and no more"""
    results: Path = Path("results")
    """where the record is written"""

    def __post_init__(self) -> None:
        check_range("pairs", self.pairs, 1, 10_000)
        check_range("steps", self.steps, 1, 10_000)
        for count in self.threads:
            check_range("threads", count, 1, 4096)


@dataclass(frozen=True)
class ThroughputOptions:
    """Measure training throughput of the default VQA recipe and the effect of each lever."""

    blocks: int = 6
    """pairs of blocks to time for each lever"""
    steps: int = 10
    """optimiser steps a block"""
    compile: bool = True
    """include torch.compile, which takes a minute and a C++ compiler"""
    results: Path = Path("results")
    """where the record is written"""


@dataclass(frozen=True)
class FrozenOptions:
    """Run a short suite with a frozen tower's outputs kept, and once more with the tower run at every step."""

    case: str = "text"
    """case"""
    recipe: str = "text-pretrained"
    """one of its recipes, with a tower that is frozen whole"""
    strategies: tuple[str, ...] = ("STL", "MTL")
    """strategies, a run each and seed"""
    seeds: int = 1
    """seeds of the suite"""
    steps: int = 80
    """optimiser steps of a run"""
    threads: int = 0
    """CPU threads; 0 = as many as there are cores"""
    results: Path = Path("results")
    """where the record is written"""

    def __post_init__(self) -> None:
        for name in ("seeds", "steps"):
            check_range(name, getattr(self, name), 1, 10**6)


GPU_CHECKS = ("tests", "flops", "accuracy", "resume", "bf16", "step", "contrastive", "loading")


@dataclass(frozen=True)
class GpuOptions:
    """Check a GPU against the CPU: tests, FLOPs, accuracy, resume, bf16, speed, memory, data loading."""

    checks: tuple[str, ...] = GPU_CHECKS
    """what to check: tests, flops, accuracy, resume, bf16, step, contrastive, loading"""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """cuda; cpu = a dry run, small; auto = cuda where there is a device"""
    cases: tuple[str, ...] = ()
    """cases whose FLOPs are compared; empty = all"""
    tests: tuple[str, ...] = ("tests",)
    """files or folders whose tests marked gpu are run"""
    seconds_a_check: float = 240.0
    """that each process may take, in seconds; one that takes longer is ended and named"""
    data_folder: Path = Path("data")
    """where prepared data are kept"""
    results: Path = Path("results")
    """folder for the record"""

    def __post_init__(self) -> None:
        for check in self.checks:
            if check not in GPU_CHECKS:
                raise unknown_name("check", check, GPU_CHECKS)
        check_range("seconds_a_check", self.seconds_a_check, 1, 10**6)


NO_ECONOMY = "none"
# name → changes of a case's training knobs, and parts that are frozen
ECONOMIES: Mapping[str, Mapping[str, Any]] = {
    NO_ECONOMY: {},
    "patch-dropout": {"patch_dropout": 0.5},
    "low-resolution": {"low_resolution_until": 0.5},
    "small-batch": {"small_batch_until": 0.5},
    "average": {"average_decay": 0.99},
    "freeze-text": {"freeze": ("text@from=0.5",)},
}


def with_economy(knobs: Any, name: str) -> Any:
    """A case's knobs with the economy `name` of `ECONOMIES`.

    Raises:
        Mt2stError: it freezes a part, and the case has no encoder knobs.
    """
    changes = dict(ECONOMIES[name])
    freeze = changes.pop("freeze", None)
    if freeze and not hasattr(knobs, "encoder"):
        raise Mt2stError(f"economy {name!r} freezes {' '.join(freeze)}, but this case has no encoder to freeze")
    changed = replace(knobs, train=replace(knobs.train, **changes)) if changes else knobs
    return replace(changed, encoder=replace(changed.encoder, freeze=freeze)) if freeze else changed


GROWTHS = ("batch", "image", "vocabulary", "auxiliaries", "report", "prepare")


@dataclass(frozen=True)
class GrowthOptions:
    """Measure how seconds and memory grow with the size of the work, and fit the exponent of each curve."""

    curves: tuple[str, ...] = GROWTHS
    """what grows: batch, image, vocabulary, auxiliaries, report, prepare"""
    largest: float = 1.0
    """the largest sizes as a share of the usual ones; less = shorter curves for a slower machine"""
    repetitions: int = 3
    """times that each size is measured, in turn; the least is taken, all are stored"""
    threads: int = 1
    """processor threads of each process"""
    results: Path = Path("results")
    """where the record is written"""

    def __post_init__(self) -> None:
        for curve in self.curves:
            if curve not in GROWTHS:
                raise unknown_name("curve", curve, GROWTHS)
        check_range("largest", self.largest, 1e-6, 1.0)
        check_range("repetitions", self.repetitions, 1, 100)
        check_range("threads", self.threads, 1, 4096)


@dataclass(frozen=True)
class DataOptions:
    """Measure preparing and reading of data."""

    images: int = 1500
    """drawn photos (640×480 JPEG) for the decoding rounds"""
    image_size: int = 224
    """side of the prepared images, in pixels"""
    rounds: int = 3
    """pairs of rounds, bare loop and prepare in turn"""
    workers: int = 2
    """decoding processes of both"""
    batch_size: int = 64
    """images a batch when reading"""
    memory_images: int = 100_000
    """images of the larger memory measurement; the smaller has a hundredth"""
    results: Path = Path("results")
    """where the record is written"""

    def __post_init__(self) -> None:
        check_range("images", self.images, 100, 10**7, "a shorter run measures the start of processes")
        check_range("memory_images", self.memory_images, 1000, 10**8)


@dataclass(frozen=True)
class TrainedOptions:
    """Measure a trained model of the default VQA recipe: loading, single answers, prediction, search."""

    rounds: int = 5
    """processes that load, and pairs of predictions of the test split"""
    gallery: int = 8000
    """pictures that are searched"""
    results: Path = Path("results")
    """where the record is written"""

    def __post_init__(self) -> None:
        check_range("rounds", self.rounds, 1, 1000)
        check_range("gallery", self.gallery, 20, 10**6)


@dataclass(frozen=True)
class ScaleOptions:
    """Make one suite in several ways: one run after the other, side by side, on two nodes of Ray."""

    case: str = "vqa"
    """case whose suite is made"""
    seeds: int = 2
    """seeds of the suite"""
    steps: int = 0
    """optimiser steps; 0 = the case's own"""
    jobs: int = 2
    """runs side by side, and nodes of Ray with a core each"""
    ways: tuple[str, ...] = ("one", "jobs", "ray")
    """ways to make it, in this order: one, jobs, ray"""
    results: Path = Path("results")
    """where the record is written"""

    def __post_init__(self) -> None:
        for way in self.ways:
            if way not in ("one", "jobs", "ray"):
                raise unknown_name("way", way, ("one", "jobs", "ray"))
        check_range("jobs", self.jobs, 2, 4096, "side by side are at least two")
