"""embed RUN_DIR: a whole set through a trained encoder, in several processes; its retrieval metrics."""

from __future__ import annotations

from pathlib import Path

from benchmarks.embeddings.options import Options
from benchmarks.options import parser_of


def main(argv: list[str]) -> int:
    """Entry point; returns 0, also when there is nothing left to do."""
    about = (
        "Embed the images and captions of a set with the encoder of a finished run of vqa or retrieval. The output is "
        "the same to the bit for any number of jobs. What was interrupted goes on by the same command."
    )
    parser = parser_of("embed", about)
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="the run's folder, results/<benchmark>/<recipe>/<run_id>"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the embeddings, new or begun before")
    parser.add_argument(
        "--data",
        default="",
        help="an adapter's name, file or module, a prepared folder, or data without code (hf:NAME, a table, a toml); "
        "default: the run's own set",
    )
    parser.add_argument("--source", default="", help="folder that the adapter reads (default: its own)")
    parser.add_argument("--map", default="", help="our fields → columns, such as image=img,caption=text")
    parser.add_argument("--options", nargs="*", default=(), help="the adapter's own options, NAME=VALUE")
    parser.add_argument("--data-folder", type=Path, help="where prepared data are kept (default: as the run)")
    parser.add_argument("--split", default="test", help="split to embed (default: test)")
    parser.add_argument(
        "--captions", default="auto", help="main = each image's first, all, auto = as the set's card says (default)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="processes (default 0: as many as cores, GPUs and free memory carry; one for little work)",
    )
    parser.add_argument("--evaluate", action="store_true", help="measure retrieval on the embeddings, and record it")
    given = vars(parser.parse_args(argv))
    options = Options(**{**given, "options": tuple(given["options"])})
    from benchmarks.embeddings.run import run

    return run(options)
