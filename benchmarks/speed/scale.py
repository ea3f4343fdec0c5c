"""`python -m benchmarks scale`: what runs side by side gain, and that they change no bit.

The same command makes the same suite in each way, from nothing, data preparation included: one run after the other
(`--jobs 1`), several side by side (`--jobs N`), and on a Ray cluster of N nodes of this machine with a core each. Time
is that of the whole command. CPU seconds and memory are those of all its processes; memory is the sum of their
proportional sets (PSS), in which a page that several of them map counts once. Promised: side by side on two cores at
least 1.5 × as fast, and the same records.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.records.machine import environment
from benchmarks.records.read import load_records
from benchmarks.report.text_table import TextTable, print_tables
from benchmarks.speed.loop import matmul_peak
from benchmarks.speed.options import ScaleOptions
from benchmarks.suite.machine import ROOT, usable_cores
from mt2st.errors import Mt2stError
from mt2st.files import content_hash, write_sealed_json

PROMISED_SPEEDUP = 1.5
_SAMPLE_SECONDS = 0.5


def measure(options: ScaleOptions) -> int:
    """Make the suite in each way, print the table and write the record; returns 0 if all promises hold, else 1."""
    console = Console()
    ways: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="mt2st", dir=_short()) as place:
        for way in options.ways:
            console.print(f"{way} …", highlight=False)
            ways[way] = _made(options, way, Path(place) / way)
            told = ways[way]
            console.print(f"{way}: {told['runs']} runs in {told['wall_seconds']:.0f} s", highlight=False)
    peak = matmul_peak(threads=1)
    base = ways[options.ways[0]]
    for told in ways.values():
        told["speedup"] = base["wall_seconds"] / told["wall_seconds"]
        told["same_records"] = told["records_hash"] == base["records_hash"]
        told["share_of_peak"] = told["training_flops"] / told["wall_seconds"] / (peak * usable_cores())
    body = tuple(
        (
            way,
            str(told["runs"]),
            f"{told['wall_seconds']:.0f}",
            f"{told['speedup']:.2f}",
            f"{told['cpu_seconds'] / told['wall_seconds'] / usable_cores():.0%}",
            f"{told['share_of_peak']:.0%}",
            f"{told['peak_memory_bytes'] / 1e6:.0f}",
            f"{told['peak_sum_of_resident_bytes'] / 1e6:.0f}",
            "yes" if told["same_records"] else "NO",
        )
        for way, told in ways.items()
    )
    head = ("way", "runs", "wall s", "faster", "cores busy", "of matmul peak", "PSS MB", "RSS MB", "same records")
    caption = f"peak: {usable_cores()} cores × {peak / 1e9:.0f} GFLOP/s of one thread"
    print_tables([TextTable(f"{options.case}: ways to make one suite", head, body, caption)], console)
    path = options.results / "scale" / "scale.json"
    write_sealed_json(
        path, {**environment(), "options": _plain(options), "one_thread_flops_per_second": peak, "ways": ways}
    )
    console.print(f"record: {path}", highlight=False)
    fast = "jobs" not in ways or "one" not in ways or ways["jobs"]["speedup"] >= PROMISED_SPEEDUP
    return 0 if fast and all(told["same_records"] for told in ways.values()) else 1


def _short() -> str | None:
    """A folder with a short path: Ray's sockets lie below it, whose paths may have 107 characters."""
    return "/tmp" if os.name == "posix" else None


def _plain(options: ScaleOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "results"}


def _made(options: ScaleOptions, way: str, place: Path) -> dict[str, Any]:
    """Make the suite one way in `place`; what it took and what came out."""
    command = [sys.executable, "-m", "benchmarks", options.case, "--seeds", str(options.seeds)]
    command += ["--results", str(place / "results"), "--data-folder", str(place / "data")]
    command += ["--steps", str(options.steps)] if options.steps else []
    place.mkdir()
    with _cluster(options.jobs, place) if way == "ray" else _nothing() as extra:
        command += ["--jobs", "1" if way == "one" else str(options.jobs), *extra]
        started = time.perf_counter()
        with (place / "log.txt").open("w") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "RAY_AUTH_MODE": "disabled"}
            )
            watched = _Watched()
            while process.poll() is None:
                watched.look()
                time.sleep(_SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
    if process.returncode:
        text = (place / "log.txt").read_text().strip()
        raise Mt2stError(f"{way}: the suite ended with exit code {process.returncode}: {text[-500:]}")
    records = load_records(place / "results", options.case, "default").finished
    values = [record.values for record in records]
    return {
        "runs": len(values),
        "wall_seconds": seconds,
        "cpu_seconds": watched.cpu_seconds,
        "peak_memory_bytes": watched.peak_proportional_bytes,
        "peak_sum_of_resident_bytes": watched.peak_resident_bytes,
        "processes": watched.most_processes,
        "training_flops": sum(record.training_flops for record in records),
        "records_hash": content_hash([_numbers(value) for value in values]),
    }


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """What must not depend on the way."""
    curve = [{name: number for name, number in row.items() if name != "seconds"} for row in record["curve"]]
    kept = ("run_id", "config_hash", "steps", "flops", "metrics", "floors")
    return {**{name: record[name] for name in kept}, "curve": curve, "items": record["items"]["sha256"]}


class _Watched:
    """CPU seconds and memory of all processes below this one, by looking at them now and then."""

    def __init__(self) -> None:
        self._before = {process.pid for process in psutil.Process().children(recursive=True)}
        self._cpu: dict[tuple[int, float], float] = {}
        self.peak_proportional_bytes = self.peak_resident_bytes = self.most_processes = 0

    def look(self) -> None:
        proportional = resident = count = 0
        for process in psutil.Process().children(recursive=True):
            try:
                times, memory = process.cpu_times(), process.memory_full_info()
                self._cpu[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:  # it has just ended
                continue
            count += 1
            proportional += memory.pss if hasattr(memory, "pss") else memory.uss
            resident += memory.rss
        self.peak_proportional_bytes = max(self.peak_proportional_bytes, proportional)
        self.peak_resident_bytes = max(self.peak_resident_bytes, resident)
        self.most_processes = max(self.most_processes, count)

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())


@contextmanager
def _nothing() -> Iterator[list[str]]:
    yield []


@contextmanager
def _cluster(nodes: int, place: Path) -> Iterator[list[str]]:
    """A Ray cluster of `nodes` node processes of this machine, a core each; the options that name it."""
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        cure = "pip install 'mt2st[ray]', or leave it out with --ways one jobs"
        raise Mt2stError(f"the way ray needs the package ray; {cure}") from None
    before = {name: os.environ.get(name) for name in ("RAY_TMPDIR", "RAY_AUTH_MODE")}
    os.environ.update(RAY_TMPDIR=str(place), RAY_AUTH_MODE="disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        yield ["--engine", "ray", "--ray-address", cluster.address]
    finally:
        cluster.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
