"""What `python -m benchmarks embed` can be told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Embed a set with a trained run.

    Attributes:
        run_dir: the run's folder.
        out: the folder of embeddings.
        data: the set, as a case's --data; "" = the set that the run was trained on.
        source: folder that the adapter reads; "" = its default.
        map: our fields → columns of data that need no code.
        options: the adapter's own, NAME=VALUE.
        data_folder: where prepared data are kept; None = where the run keeps them.
        split: its split.
        captions: "auto" = as the set's card says, "main" = each image's first, "all".
        jobs: processes that embed and rank; 0 = as many as cores, GPUs and free memory carry, or one for little work.
        evaluate: measure retrieval on the embeddings.
    """

    run_dir: Path
    out: Path
    data: str = ""
    source: str = ""
    map: str = ""
    options: tuple[str, ...] = ()
    data_folder: Path | None = None
    split: str = "test"
    captions: str = "auto"
    jobs: int = 0
    evaluate: bool = False
