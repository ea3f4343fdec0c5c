"""The commands of `python -m benchmarks`, one file each, found by name; they parse arguments and call the rooms below.

A command's file has a docstring, whose first line is `COMMAND …: what it does`, and `main(argv) -> exit code`.
"""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parent


def command_names() -> list[str]:
    """Names of all commands, sorted, from the files alone."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def about_command(name: str) -> str:
    """What a command does: the first line of its docstring, read without importing it."""
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return docstring.split("\n")[0]
