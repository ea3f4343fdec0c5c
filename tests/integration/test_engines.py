"""Engines that exist: Ray with two nodes of which one dies, SLURM through submitit's local executor; bad addresses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.records.read import load_records
from benchmarks.suite.engines import Check, Needs, engine_names, open_engine
from mt2st.errors import Mt2stError

ROOT = Path(__file__).parents[2]
DRAWN = ROOT / "tests" / "helpers" / "drawn_dataset.py"
STEPS = 400
SUITE = [
    *("--data", str(DRAWN), "--image-size", "16", "--steps", str(STEPS), "--seeds", "1", "--validations", "2"),
    *("--views", "equal-steps", "--strategies", "STL", "MTL", "Switch", "--label-fraction", "0.5"),
    *("--images-per-batch", "4", "--questions-per-image", "2", "--caption-images-per-batch", "8"),
    *("--encoder.width", "16", "--encoder.embedding-width", "16", "--encoder.fusion-width", "16"),
    *("--encoder.stem-width", "4", "--encoder.vocabulary-size", "300"),
    *("--checkpoint-every-steps", "20", "--log-every-steps", "10"),
]
CHECK = Check("code", "beacon", "word")


pytestmark = pytest.mark.timeout(900)  # on a machine that has other work to do


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, because Ray's sockets lie in it and their paths may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="mt", dir="/tmp") as place:
        yield Path(place)


def environment(folder: Path) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
    return {**os.environ, **own, "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false"}


def start(folder: Path, results: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks", "vqa", *SUITE, "--data-folder", str(folder / "data")]
    command += ["--results", str(results), *options]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(folder), cwd=ROOT, **streams)


def ended(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate(timeout=700)
    assert process.returncode == 0, printed[-3000:] + errors[-3000:]
    return " ".join(printed.split())


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Any]:
    ended(start(folder, folder / "one", "--jobs", "1"))
    return outcome(folder / "one")


def outcome(results: Path) -> dict[str, Any]:
    """What must not differ by a bit, by run."""
    found = {}
    for record in load_records(results, "vqa", "default").finished:
        weights = record.folder / "weights.safetensors"
        curve = [{key: value for key, value in row.items() if key != "seconds"} for row in record.curve]
        items = {name: array.tobytes() for name, array in record.items.items()}
        values = record.values
        found[record.folder.name] = (weights.read_bytes(), values["flops"], values["metrics"], curve, items)
    return found


@pytest.mark.chaos
def test_a_ray_node_dies_and_its_runs_go_on_elsewhere_to_the_same_bits(
    folder: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        results = folder / "ray"
        driver = start(folder, results, "--engine", "ray", "--ray-address", cluster.address, "--jobs", "2")
        wait_for(lambda: len(steps_of(results)) >= 2 and min(steps_of(results)) >= 40, driver)
        cluster.remove_node(second, allow_graceful=False)
        printed = ended(driver)
    finally:
        cluster.shutdown()
    assert "its actor or node died" in printed
    assert "tried again from step" in printed
    assert outcome(results) == undisturbed


def steps_of(results: Path) -> list[int]:
    """The step that each begun run has logged last."""
    found = []
    for path in results.glob("*/*/*/metrics.jsonl"):
        lines = path.read_text().splitlines()
        found += [json.loads(lines[-2])["step"]] if len(lines) > 1 else []
    return found


def wait_for(condition: Any, driver: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 400
    while not condition():
        assert driver.poll() is None, driver.communicate()[1][-3000:]
        assert time.monotonic() < until, "nothing began"
        time.sleep(0.05)


def test_jobs_of_submitit_give_the_same_bits(folder: Path, undisturbed: dict[str, Any]) -> None:
    pytest.importorskip("submitit")
    results = folder / "slurm"
    settings = ("--slurm", "cluster=local", "timeout_min=10")
    printed = ended(start(folder, results, "--engine", "slurm", *settings, "--jobs", "2"))
    assert printed.count("vqa_accuracy") >= 3
    assert outcome(results) == undisturbed


def test_engines_are_found_by_their_files() -> None:
    assert engine_names() == ["local", "ray", "slurm"]
    with pytest.raises(Mt2stError, match=r"unknown engine 'rey'; did you mean 'ray'"):
        open_engine(JobKnobs(engine="rey"), Needs(), CHECK, 1)


def test_an_address_where_no_ray_is_is_one_line() -> None:
    pytest.importorskip("ray")
    knobs = JobKnobs(engine="ray", ray_address="127.0.0.1:1")
    with pytest.raises(Mt2stError, match=r"--ray-address 127\.0\.0\.1:1 does not answer .*; start it with"):
        open_engine(knobs, Needs(), CHECK, 1)


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a SLURM here")
def test_without_slurm_the_error_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(Mt2stError, match=r"SLURM cannot be used \(.*srun.*\); check --slurm"):
        open_engine(JobKnobs(engine="slurm"), Needs(), Check("code", str(tmp_path / "beacon"), "word"), 1)


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_names_its_extra(engine: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Mt2stError, match=rf"--engine {engine} needs the package {package}; .*mt2st\[{engine}\]"):
        open_engine(JobKnobs(engine=engine), Needs(), CHECK, 1)
