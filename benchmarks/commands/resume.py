"""`python -m benchmarks resume RUN_DIR`: go on with one run from its last checkpoint."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.cases.discovery import load_case
from benchmarks.cli import parser_of


def main(argv: list[str]) -> int:
    """Entry point; returns 0, also when there is nothing left to do, or 1 if the run failed."""
    parser = parser_of("resume", "Go on with one run from its last checkpoint.")
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="the run's folder, results/<benchmark>/<recipe>/<run_id>"
    )
    run_dir = parser.parse_args(argv).run_dir
    from benchmarks.records.folder import RunFolder

    folder = RunFolder.existing(run_dir)
    if folder.state() == "finished":
        sys.stdout.write(f"{run_dir} is finished; nothing to do\n")
        return 0
    case = load_case(folder.identity["benchmark"])
    if hasattr(case.module, "resume"):
        return case.module.resume(run_dir)
    return import_module("benchmarks.suite.runner").resume_run(run_dir)
