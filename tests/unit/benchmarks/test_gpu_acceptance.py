"""`python -m benchmarks gpu` as a dry run on the CPU: the same code, and a table that says what could not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed import gpu, gpu_worker
from benchmarks.speed.lines import TooLongError
from benchmarks.speed.options import GpuOptions
from mt2st.errors import Mt2stError


def record_of(results: Path) -> dict[str, Any]:
    (path,) = (results / "gpu").glob("*/run.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_checks_without_data_run_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(module: str, task: str, arguments: dict[str, Any], **more: Any) -> Any:
        if arguments.pop("compile", False):
            arguments["compile"] = False  # compiling takes half a minute
        elif task == "step":
            arguments["compile"] = False
        return json.loads(json.dumps(gpu_worker.TASKS[task](**arguments)))

    monkeypatch.setattr(gpu, "in_process", here)
    checks = ("step", "contrastive", "loading")
    assert gpu.measure(GpuOptions(device="cpu", checks=checks, results=tmp_path)) == 0
    record = record_of(tmp_path)
    assert record["device"] == "cpu"
    found = {line["what"]: line for line in record["lines"]}
    assert found["contrastive by chunks: largest relative difference"]["met"] is True
    assert found["loading: store of pixels / what the compiled step takes"]["met"] is None  # judged on a GPU alone
    step = record["measurements"]["step"]["eager"]
    assert step["flops_per_second"] > 0
    assert step["batch"] == 4


def test_what_could_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Any] = {
        "resume": {"tensors": 9, "differing": 1, "steps": 8},
        "contrastive": TooLongError("contrastive took longer than 5 s and was ended"),
        "bf16": Mt2stError("measuring bf16 failed with exit code 1: no bfloat16"),
        "loading": KeyboardInterrupt(),
    }

    def answer(module: str, task: str, arguments: dict[str, Any], **more: Any) -> Any:
        if isinstance(answers[task], BaseException):
            raise answers[task]
        return answers[task]

    monkeypatch.setattr(gpu, "in_process", answer)
    checks = ("loading", "resume", "contrastive", "bf16")
    assert gpu.measure(GpuOptions(device="cpu", checks=checks, results=tmp_path)) == 130
    found = {line["what"].partition(":")[0]: line for line in record_of(tmp_path)["lines"]}
    assert found["resumed half way through 8 steps"]["met"] is False
    assert found["contrastive"]["value"] == "not run"
    assert found["bf16"]["met"] is False
    assert "no bfloat16" in found["bf16"]["what"]
    assert found["loading"]["what"] == "loading: could not run: interrupted before its end"


def test_equal_flops_and_close_accuracies_are_met() -> None:
    def run(task: str, *, on: str = "cuda", seed: int = 0, **more: Any) -> Any:
        if task == "flops":
            return {"all": 10, "primary": 4 if on == "cuda" else 5}
        return {"vqa_accuracy": 0.9 if on == "cuda" else 0.9 + 0.01 * seed, "seconds_per_step": 0.5}

    assert gpu._flops(run, GpuOptions(cases=("vqa",)), "cuda")[1][0].met is False
    accuracy = gpu._accuracy(run, GpuOptions(), "cuda")[1][0]
    assert (accuracy.value, accuracy.met) == ("0.9000 / 0.9050", True)


def test_skipped_tests_are_said_with_their_reason() -> None:
    output = (
        "sss\nSKIPPED [2] tests/a.py:3: needs a CUDA device\nSKIPPED [1] tests/b.py:9: no faiss\n3 skipped in 1.2s\n"
    )
    raw, (line,) = gpu.tests_lines(output, 0)
    assert raw["counts"] == {"skipped": 3}
    assert line.what == "3 tests marked gpu: could not run: needs a CUDA device; no faiss"
    _, (ran, _) = gpu.tests_lines("..F\n1 failed, 2 passed, 1 skipped in 3.1s", 1)
    assert (ran.value, ran.met) == ("2 passed, 1 failed", False)
    assert gpu.tests_lines("2 passed in 3.1s", 0)[1][0].met is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="torch sees no CUDA device"):
        gpu.measure(GpuOptions(device="cuda", results=tmp_path))
    with pytest.raises(Mt2stError, match="did you mean 'resume'"):
        GpuOptions(checks=("resum",))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_resume_to_the_same_bits_on_a_gpu() -> None:
    assert gpu_worker.resume("cuda", dry=True)["differing"] == 0
