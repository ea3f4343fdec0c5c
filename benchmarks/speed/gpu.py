"""`python -m benchmarks gpu`: whether a GPU does what the CPU does, and how fast.

Each check runs in a process of its own, with a limit on its time. The record is written after every check, so what
was found stays when the command is stopped; a check that could not run is named with the reason. Without a GPU, or with
`--device cpu`, the same code runs in small on the CPU: a dry run, which tells nothing of a GPU.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.cases import case_names
from benchmarks.speed.lines import Comparison, Line, TooLongError, in_process
from benchmarks.speed.options import GPU_CHECKS, GpuOptions
from mt2st.errors import Mt2stError

_WORKER = "benchmarks.speed.gpu_worker"
_HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}  # so a process sees no GPU
_ACCURACY = 0.02  # seeds alone move the result by about one point; two are averaged on each side
_SEEDS = (0, 1)
_COUNTS = re.compile(r"(\d+) (passed|failed|error|errors|skipped)")
Run = Callable[..., Any]


def measure(options: GpuOptions) -> int:
    """Check, record, print. Returns 0, or 1 if a check failed or a goal was missed; 130 where it was interrupted."""
    console = Console()
    device = options.device if options.device != "auto" else ("cuda" if _cuda() else "cpu")
    if device == "cuda" and not _cuda():
        raise Mt2stError("--device cuda, but torch sees no CUDA device; use --device cpu for a dry run")
    dry = device == "cpu"
    title = "Dry run on the CPU: it tells nothing of a GPU" if dry else "A GPU beside the CPU"
    comparison = Comparison("gpu", title, options, options.results)
    comparison.record["device"] = device

    def run(task: str, *, on: str = device, **arguments: Any) -> Any:
        hidden = _HIDDEN if on == "cpu" else None
        told = {"device": on, "dry": dry, **arguments}
        return in_process(_WORKER, task, told, surroundings=hidden, seconds=options.seconds_a_check)

    checks: Mapping[str, Callable[[], tuple[Any, list[Line]]]] = {
        "tests": lambda: _tests(options, dry=dry),
        "flops": lambda: _flops(run, options, device),
        "accuracy": lambda: _accuracy(run, options, device),
        "resume": lambda: _resume(run, options),
        "bf16": lambda: _bf16(run, options),
        "step": lambda: _step(run, dry=dry),
        "contrastive": lambda: _contrastive(run, dry=dry),
        "loading": lambda: _loading(run, comparison.record["measurements"].get("step"), dry=dry),
    }
    left = [name for name in GPU_CHECKS if name in options.checks]
    try:
        while left:
            name = left[0]
            console.print(f"checking: {name}", highlight=False)
            try:
                raw, lines = checks[name]()
            except TooLongError as error:
                raw, lines = {"error": str(error)}, [_not_run(name, str(error))]
            except Mt2stError as error:
                raw, lines = {"error": str(error)}, [Line(f"{name}: {error}", "failed", "runs", met=False)]
            comparison.keep(name, raw, lines)
            left.pop(0)
    except KeyboardInterrupt:
        comparison.keep("interrupted", left, [_not_run(name, "interrupted before its end") for name in left])
        comparison.show(console)
        return 130
    return comparison.show(console)


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _not_run(name: str, why: str) -> Line:
    return Line(f"{name}: could not run: {why}", "not run")


def _tests(options: GpuOptions, *, dry: bool) -> tuple[Any, list[Line]]:
    """The tests marked `gpu`, among them the contract of FAISS on a GPU. Without a GPU they skip, which is said."""
    repository = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:xdist", "-o", "addopts="]
    surroundings = {**os.environ, **(_HIDDEN if dry else {})}
    places = [str(repository / place) for place in options.tests]
    try:
        done = subprocess.run(
            [*command, *places],
            capture_output=True,
            text=True,
            cwd=repository,
            env=surroundings,
            check=False,
            timeout=options.seconds_a_check,
        )
    except subprocess.TimeoutExpired:
        raise TooLongError(f"the tests took longer than {options.seconds_a_check:.0f} s and were ended") from None
    return tests_lines(done.stdout, done.returncode)


def tests_lines(output: str, code: int) -> tuple[Any, list[Line]]:
    """The table's lines of pytest's output: how many passed, and the reasons of those that skipped."""
    last = output.strip().splitlines()[-1] if output.strip() else "no output"
    counts = {kind.removesuffix("s"): int(number) for number, kind in _COUNTS.findall(last)}
    reasons = sorted({line.partition(": ")[2] for line in output.splitlines() if line.startswith("SKIPPED")})
    lines = []
    if counts.get("passed") or counts.get("failed") or counts.get("error") or code not in (0, 5):
        failed = counts.get("failed", 0) + counts.get("error", 0)
        value = f"{counts.get('passed', 0)} passed, {failed} failed"
        lines.append(Line("tests marked gpu", value, "none fails", code == 0))
    if counts.get("skipped"):
        lines.append(_not_run(f"{counts['skipped']} tests marked gpu", "; ".join(reasons) or "skipped"))
    return {"counts": counts, "exit_code": code, "skipped_because": reasons, "last_line": last}, lines


def _flops(run: Run, options: GpuOptions, device: str) -> tuple[Any, list[Line]]:
    raw: dict[str, Any] = {}
    lines: list[Line] = []
    for case in options.cases or case_names():
        told = {"case": case, "data_folder": str(options.data_folder)}
        raw[case] = {"device": run("flops", **told), "cpu": run("flops", on="cpu", **told)}
        same = raw[case]["device"] == raw[case]["cpu"]
        value = f"{raw[case]['device']['all']:,} / {raw[case]['cpu']['all']:,}"
        lines.append(Line(f"FLOPs of a {case} step, {device} / cpu", value, "equal", same))
    return raw, lines


def _accuracy(run: Run, options: GpuOptions, device: str) -> tuple[Any, list[Line]]:
    folder = str(options.data_folder)
    raw = {on: [run("accuracy", on=on, seed=seed, data_folder=folder) for seed in _SEEDS] for on in (device, "cpu")}
    means = {on: sum(one["vqa_accuracy"] for one in found) / len(found) for on, found in raw.items()}
    difference = abs(means[device] - means["cpu"])
    seconds = {on: min(one["seconds_per_step"] for one in found) for on, found in raw.items()}
    return raw, [
        Line(
            f"default vqa, validation accuracy of {len(_SEEDS)} seeds, {device} / cpu",
            f"{means[device]:.4f} / {means['cpu']:.4f}",
            f"within {_ACCURACY:.2f}",
            difference <= _ACCURACY,
        ),
        Line(f"default vqa, ms a step, {device} / cpu", " / ".join(f"{1000 * each:.1f}" for each in seconds.values())),
    ]


def _resume(run: Run, options: GpuOptions) -> tuple[Any, list[Line]]:
    raw = run("resume", data_folder=str(options.data_folder))
    value = f"{raw['differing']} of {raw['tensors']} tensors differ"
    return raw, [Line(f"resumed half way through {raw['steps']} steps", value, "none", raw["differing"] == 0)]


def _bf16(run: Run, options: GpuOptions) -> tuple[Any, list[Line]]:
    raw = run("bf16", data_folder=str(options.data_folder))
    fell = {name: raw[f"{name}/first"] - raw[f"{name}/last"] for name in ("no", "bf16")}
    close = fell["bf16"] >= 0.8 * fell["no"]
    times = raw["no/seconds_per_step"] / raw["bf16/seconds_per_step"]
    return raw, [
        Line("bf16: fall of the vqa loss, bf16 / fp32", f"{fell['bf16']:.3f} / {fell['no']:.3f}", "≥ 0.8 ×", close),
        Line("bf16: times as fast as fp32", f"{times:.2f}"),
    ]


def _step(run: Run, *, dry: bool) -> tuple[Any, list[Line]]:
    raw: dict[str, Any] = {"peak": run("peak"), "eager": run("step", compile=False)}
    raw["compiled"] = run("step", compile=True)
    rate = raw["peak"]["bf16"]
    what = "a small CLIP + VQA step, bf16" if dry else "ViT-B/16 CLIP + VQA step, bf16"
    lines = [Line("matmul peak, bf16", f"{rate / 1e12:.3g} TFLOP/s")]
    for name in ("eager", "compiled"):
        found = raw[name]
        share = found["flops_per_second"] / rate
        goal: dict[str, Any] = {} if dry or name == "eager" else {"goal": "≥ 50 %", "met": share >= 0.5}
        lines += [
            Line(f"{what}, {name}: images/s", f"{found['images_per_second']:,.0f}"),
            Line(f"{what}, {name}: model FLOPs utilisation", f"{share:.1%}", **goal),
            Line(f"{what}, {name}: peak memory", f"{found['peak_bytes'] / 1e9:.2f} GB"),
        ]
    lines.append(Line(f"{what}: seconds of the first steps, compiled", f"{raw['compiled']['first_steps_seconds']:.1f}"))
    return raw, lines


def _contrastive(run: Run, *, dry: bool) -> tuple[Any, list[Line]]:
    raw = run("contrastive")
    largest = max(raw["difference"], raw["gradient_difference"])
    return raw, [
        Line("contrastive by chunks: largest relative difference", f"{largest:.1e}", "≤ 1e-4", largest <= 1e-4),
        Line(
            f"contrastive by chunks, batch {raw['batch']:,}: seconds, peak memory",
            f"{raw['seconds']:.2f} s, {raw['peak_bytes'] / 1e9:.2f} GB",
        ),
    ]


def _loading(run: Run, step: Mapping[str, Any] | None, *, dry: bool) -> tuple[Any, list[Line]]:
    raw = run("loading")
    rates = f"{raw['pixels']:,.0f} / {raw['encoded']:,.0f}"
    lines = [Line("loading, images/s: store of pixels / decoded on the fly", rates)]
    if step is None or "compiled" not in step:
        return raw, [*lines, _not_run("loading against the step", "the check step did not end")]
    taken = step["compiled"]["images_per_second"]
    times = raw["pixels"] / taken
    goal: dict[str, Any] = {} if dry else {"goal": "≥ 1", "met": times >= 1}
    lines.append(Line("loading: store of pixels / what the compiled step takes", f"{times:.2f}", **goal))
    lines.append(Line("loading: decoded on the fly / what the compiled step takes", f"{raw['encoded'] / taken:.2f}"))
    return raw, lines
