"""`python -m benchmarks evaluate`: finished models on data, without training.

    python -m benchmarks evaluate --model open_clip:ViT-B-32:laion2b_s34b_b79k --data flickr30k --source FOLDER
    python -m benchmarks evaluate --model hf:FOLDER open_clip:FOLDER RUN_FOLDER --data openmoji easy_vqa digits

Every pair of a model and a set is a folder `results/evaluate/<set>/<model>-<hash>/`:
    run.json                   the record (sealed; last: where it is finished, the pair is skipped)
    items.safetensors          per-item results
    answers.json               what was answered to each question
    embeddings.safetensors     of retrieval; `python -m benchmarks index --data FOLDER` searches them
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.numpy import save

from benchmarks.evaluate.candidates import measure_candidates
from benchmarks.evaluate.classification import measure_probes, measure_zero_shot
from benchmarks.evaluate.data import EvaluationData, facts, open_data
from benchmarks.evaluate.embed import Embedder
from benchmarks.evaluate.generation import Answerer, measure_answers
from benchmarks.evaluate.generative import GenerativeModel
from benchmarks.evaluate.measured import Measured
from benchmarks.evaluate.model import DualModel
from benchmarks.evaluate.models import fingerprint, load_model
from benchmarks.evaluate.options import AUTO, Options
from benchmarks.evaluate.report import evaluation_table
from benchmarks.evaluate.retrieval import measure_retrieval
from benchmarks.records.folder import slug
from benchmarks.records.lock import RunLock
from benchmarks.records.machine import (
    describe,
    environment,
    peak_gpu_bytes,
    peak_resident_bytes,
    reset_peak_gpu,
    reset_peak_resident,
)
from benchmarks.records.metrics_log import plain
from benchmarks.report.text_table import markdown_list, print_tables, to_markdown
from mt2st.errors import Mt2stError
from mt2st.files import content_hash, read_sealed_json, write_bytes, write_sealed_json, write_text
from mt2st.threads import computing_threads, usable_threads

_DECIDING = (
    "split",
    "train_split",
    "templates",
    "class_names",
    "neighbours",
    "candidates",
    "limit",
    "instruction",
    "new_tokens",
)
# Of data, of files, and of other people's libraries; Mt2stError is a ValueError.
_FAILURES = (ValueError, OSError, RuntimeError, LookupError, TypeError, AttributeError, SafetensorError)
Model = DualModel | GenerativeModel
_MEASURES: dict[str, Callable[[Embedder, EvaluationData, Options], Measured]] = {
    "retrieval": measure_retrieval,
    "zero-shot": measure_zero_shot,
    "probes": measure_probes,
    "vqa": measure_candidates,
}


def run(options: Options) -> int:
    """Measure every pair that is not finished, record, print. Returns 0, or 1 if a pair failed (the others went on).

    Raises:
        Mt2stError: no model or no set is named, or not one pair could be measured.
    """
    if not options.model or not options.data:
        raise Mt2stError("--model and --data each name at least one; for example --model hf:FOLDER --data openmoji")
    console = Console()
    threads = options.threads or usable_threads()
    surroundings = environment()
    console.print(describe(surroundings["hardware"]), highlight=False)
    records: list[dict[str, Any]] = []
    holes: list[tuple[str, str]] = []
    opened: dict[str, EvaluationData] = {}
    with computing_threads(threads):
        for spec in options.model:
            model = _Once(lambda spec=spec: _placed(spec, options.device))  # type: ignore[misc]
            for name in options.data:
                try:
                    if name not in opened:
                        opened[name] = open_data(name, options, console)
                    records.append(_pair(spec, name, model, opened[name], options, surroundings, console))
                except _FAILURES as error:  # one pair that fails must not sink the others
                    why = str(error) if isinstance(error, Mt2stError) else traceback.format_exception_only(error)[-1]
                    holes.append((f"{spec} on {name}", " ".join(why.split())))
                    console.print(f"    failed: {holes[-1][1]}", markup=False, highlight=False, soft_wrap=True)
            del model
            gc.collect()  # not two models at a time
    if not records:
        raise Mt2stError(f"none of the {len(holes)} pairs could be measured; the first, {': '.join(holes[0])}")
    table = evaluation_table(records, [pair for pair, _ in holes])
    reasons = [": ".join(hole) for hole in holes]
    print_tables([table], console)
    for line in reasons:
        console.print(f"failed: {line}", markup=False, highlight=False, soft_wrap=True)
    path = options.results / "evaluate" / "TABLE.md"
    write_text(path, "\n".join([to_markdown(table), *markdown_list("Failed", reasons)]))
    console.print(f"table: {path}", markup=False, highlight=False, soft_wrap=True)
    return 1 if holes else 0


class _Once:
    """A value that is made when first asked for; an error is remembered and raised again."""

    def __init__(self, make: Callable[[], Model]) -> None:
        self._make = make
        self._value: Model | None = None
        self._error: Mt2stError | None = None

    def __call__(self) -> Model:
        if self._error is not None:
            raise self._error
        if self._value is None:
            try:
                self._value = self._make()
            except Mt2stError as error:
                self._error = error
                raise
        return self._value


def _placed(spec: str, device: str) -> Model:
    """The model on its device."""
    model = load_model(spec)
    if device == AUTO:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise Mt2stError("--device cuda: torch sees no GPU here; leave --device out, or give cpu")
    model.to(device)
    return model


def _pair(
    spec: str,
    name: str,
    model: _Once,
    data: EvaluationData,
    options: Options,
    surroundings: Mapping[str, Any],
    console: Console,
) -> dict[str, Any]:
    """The record of one pair: read where it is finished, else measured and written."""
    config = plain(
        {
            "model": fingerprint(spec),
            "data": data.dataset.content_hash,
            "tasks": list(data.tasks),
            **{key: getattr(options, key) for key in _DECIDING},
        },
        "options",
    )
    words = Path(spec.partition(":")[2] or spec).name if Path(spec.partition(":")[2] or spec).is_dir() else spec
    folder = options.results / "evaluate" / slug(data.dataset.card.name) / f"{slug(words)}-{content_hash(config)[:8]}"
    path = folder / "run.json"
    if path.is_file():
        record = read_sealed_json(path, f"delete {folder}; the same command measures the pair again")
        if record["status"] == "finished":
            console.print(f"{spec} on {name}: finished before, skipped", markup=False, highlight=False, soft_wrap=True)
            return record
    console.print(f"{spec} on {name}", markup=False, highlight=False, soft_wrap=True)
    with RunLock(folder / "lock"):
        return _measured(spec, model(), data, options, folder, {**surroundings, "config": config})


def _measured(
    spec: str, model: Model, data: EvaluationData, options: Options, folder: Path, begun: Mapping[str, Any]
) -> dict[str, Any]:
    """Measure all tasks of a pair and write its files, the record last."""
    reset_peak_resident()
    reset_peak_gpu()
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    worker: Embedder | Answerer
    if isinstance(model, GenerativeModel):
        if data.tasks != ("vqa",):
            raise Mt2stError(
                f"{spec} generates texts, so it is asked questions alone, not {', '.join(data.tasks)}; give data with "
                "questions and --tasks vqa"
            )
        worker = Answerer(model)
        found = {"vqa": measure_answers(worker, data, options)}
    else:
        worker = Embedder(model, options)
        found = {task: _MEASURES[task](worker, data, options) for task in data.tasks}
    items = {f"{task}/{name}": array for task, one in found.items() for name, array in one.items.items()}
    vectors = {name: array for one in found.values() for name, array in one.vectors.items()}
    write_bytes(folder / "items.safetensors", save(items))
    if answers := [answer for one in found.values() for answer in one.answers]:
        write_sealed_json(folder / "answers.json", {"answers": answers})
    if vectors:
        write_bytes(folder / "embeddings.safetensors", save(vectors))
    record: dict[str, Any] = plain(
        {
            **begun,
            "schema_version": 1,
            "benchmark": "evaluate",
            "status": "finished",
            "started_utc": started.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - clock,
            "options": asdict(options),
            "model": {"spec": spec, "device": str(model.device), **model.facts},
            "data": facts(data),
            "metrics": {name: value for one in found.values() for name, value in one.metrics.items()},
            "floors": {task: one.floors for task, one in found.items()},
            "costs": {kind: cost.record() for kind, cost in worker.costs.items()},
            "notes": {task: one.notes for task, one in found.items()},
            "peak_memory_bytes": peak_resident_bytes(),
            "gpu_peak_memory_bytes": peak_gpu_bytes(),
        },
        str(folder),
    )
    write_sealed_json(folder / "run.json", record)
    return record
