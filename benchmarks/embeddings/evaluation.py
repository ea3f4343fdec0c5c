"""Exact retrieval on a folder of embeddings, by several processes that map the same files."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks.embeddings.folder import SCRATCH, Embeddings
from mt2st.evaluate import evaluate_retrieval
from mt2st.files import read_sealed_json, write_sealed_json

RESULT = "retrieval.json"
CUTOFFS = (1, 5, 10)
_CURE = "delete it and repeat the command with --evaluate"


def evaluate(embeddings: Embeddings, workers: int, console: Console) -> dict[str, float]:
    """Measure, record in `retrieval.json`, print; what is recorded for these very files is not measured again."""
    path = embeddings.folder / RESULT
    files = {name: facts["sha256"] for name, facts in embeddings.manifest["files"].items()}
    found: dict[str, Any] = read_sealed_json(path, _CURE) if path.is_file() else {}
    if found.get("files") != files:
        began = time.perf_counter()
        place = TemporaryDirectory(prefix=SCRATCH, dir=embeddings.folder)
        with console.status("ranking"), place as scratch:
            owner = embeddings.text_image()
            metrics = evaluate_retrieval(
                embeddings.images, embeddings.texts, owner, CUTOFFS, workers=workers, scratch=Path(scratch)
            )
        found = {
            "run": embeddings.manifest["run"],
            "data": embeddings.manifest["data"],
            "rows": embeddings.manifest["rows"],
            "files": files,
            "metrics": metrics,
            "workers": workers,
            "seconds": time.perf_counter() - began,
        }
        write_sealed_json(path, found)
    for name, value in sorted(found["metrics"].items()):
        console.print(f"{name:28} {value:.4f}", markup=False, highlight=False)
    console.print(f"records: {path}", markup=False, highlight=False, soft_wrap=True)
    return dict(found["metrics"])
