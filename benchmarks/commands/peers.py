"""peers NAME: side by side with other people's code."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks import speed
from benchmarks.options import EXIT_CODES
from mt2st.errors import unknown_name

_PREFIX = "peers_"


def peer_names() -> list[str]:
    """What can be compared: the files peers_NAME.py of benchmarks/speed."""
    return sorted(path.stem.removeprefix(_PREFIX) for path in Path(speed.__path__[0]).glob(f"{_PREFIX}*.py"))


def main(argv: list[str]) -> int:
    """Entry point; returns the comparison's exit code."""
    names = peer_names()
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(
            f"usage: python -m benchmarks peers NAME …\n\nNAME is one of: {', '.join(names)}\n\n{EXIT_CODES}\n"
        )
        return 0 if argv else 2
    if argv[0] not in names:
        raise unknown_name("peer comparison", argv[0], names)
    return int(import_module(f"benchmarks.speed.{_PREFIX}{argv[0]}").main(argv[1:]))
