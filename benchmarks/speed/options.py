"""What the measurements of speed can be told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mt2st.errors import check_range, unknown_name


@dataclass(frozen=True)
class OverheadOptions:
    """Compare the trainer's loop with a bare loop."""

    blocks: int = 20
    """pairs of blocks to time"""
    steps: int = 10
    """optimiser steps a block"""
    threads: int = 0
    """CPU threads; 0 = as torch chooses"""
    results: Path = Path("results")
    """where the record is written"""


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
    """seeds of the suite; with the defaults of vqa two give 20 runs"""
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
