"""demo RUN [RUN2]: a page to ask one run or two, search pictures with them, compare them, and see where they looked."""

from __future__ import annotations

from pathlib import Path

from benchmarks.demo.options import Options
from benchmarks.options import parser_of


def main(argv: list[str]) -> int:
    """Entry point; returns 0 when it was ended."""
    about = (
        "Show finished runs of vqa or retrieval on a page, on this machine alone unless --host says more. The page "
        "loads nothing from other hosts. Pictures are decoded in memory and never kept. Needs the extra demo."
    )
    parser = parser_of("demo", about)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folders of one or two runs, results/<benchmark>/<recipe>/<id>",
    )
    parser.add_argument(
        "--gallery", type=Path, metavar="FOLDER", help="pictures to search (default: those of the first run's examples)"
    )
    parser.add_argument("--host", default=Options.host, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=Options.port, help="port; 0 = any free one (default: 7860)")
    parser.add_argument("--device", default=Options.device, help="cpu, cuda, …; auto = a GPU if there is one (default)")
    parser.add_argument(
        "--most-megabytes", type=float, default=Options.most_megabytes, help="largest file taken (default: 8)"
    )
    parser.add_argument(
        "--most-megapixels", type=float, default=Options.most_megapixels, help="largest picture decoded (default: 40)"
    )
    given = vars(parser.parse_args(argv))
    options = Options(**{**given, "runs": tuple(given["runs"])})
    from benchmarks.demo.server import serve

    serve(options)
    return 0
