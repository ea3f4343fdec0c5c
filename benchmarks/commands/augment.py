"""augment RUN_DIR: many embeddings from few pictures, augmented at random; a large real gallery for `index`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.options import parser_of

_SECONDS_A_LINE = 10.0


def main(argv: list[str]) -> int:
    """Entry point; returns 0."""
    about = (
        "Crop, flip and recolour pictures at random and write the embeddings that a finished run of vqa or retrieval "
        "gives them: OUT/gallery.npy and OUT/queries.npy, for python -m benchmarks index --data OUT/gallery.npy "
        "--queries OUT/queries.npy. Each item depends on its number and the seed alone."
    )
    parser = parser_of("augment", about)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run's folder")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures, subfolders too")
    parser.add_argument("--out", type=Path, required=True, help="folder for gallery.npy and queries.npy")
    parser.add_argument("--items", type=int, default=1_000_000, help="embeddings of the gallery (default 1,000,000)")
    parser.add_argument("--queries", type=int, default=1_000, help="embeddings of queries (default 1,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    given = parser.parse_args(argv)
    from benchmarks.embeddings.augmented import write_augmented

    began = last = time.monotonic()

    def told(done: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > _SECONDS_A_LINE:
            last = now
            sys.stdout.write(f"{done:,} of {given.items + given.queries:,}, {done / (now - began):,.0f} a second\n")
            sys.stdout.flush()

    write_augmented(given.run_dir, given.pictures, given.out, given.items, given.queries, given.seed, told)
    sys.stdout.write(f"{given.out}\n")
    return 0
