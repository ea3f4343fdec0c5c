"""resume RUN_DIR: go on with one run from its last checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.options import parser_of


def main(argv: list[str]) -> int:
    """Entry point; returns 0, also when there is nothing left to do, or 1 if the run failed."""
    parser = parser_of("resume", "Go on with one run from its last checkpoint.")
    help_text = "the run's folder, results/<benchmark>/<recipe>/<run_id>"
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help=help_text)
    run_dir = parser.parse_args(argv).run_dir
    from benchmarks.records.folder import RunFolder

    if RunFolder.existing(run_dir).state() == "finished":
        sys.stdout.write(f"{run_dir} is finished; nothing to do\n")
        return 0
    from benchmarks.suite.runner import resume_run

    return resume_run(run_dir)
