"""The commands of `python -m benchmarks`, one file each, found by name; they parse arguments and call the rooms below.

A command's file has a docstring, whose first line is `COMMAND …: what it does`, and `main(argv) -> exit code`.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import NoReturn

from mt2st.errors import Mt2stError

FOLDER = Path(__file__).parent
EXIT_CODES = (
    "exit codes: 0 all went well · 1 a run failed (the others went on; the table shows the hole and why) · "
    "2 bad input or a file that cannot be used, in one line · 130 stopped by Ctrl-C or SIGTERM; the same command goes on"
)


def command_names() -> list[str]:
    """Names of all commands, sorted, from the files alone."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def about_command(name: str) -> str:
    """What a command does: the first line of its docstring, read without importing it."""
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return docstring.split("\n")[0]


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for a command of ours: its errors are `Mt2stError`s, its help ends with the exit codes."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise Mt2stError(f"{message}; see {self.prog} --help")

    return Parser(prog=f"python -m benchmarks {name}", description=description, epilog=EXIT_CODES, allow_abbrev=False)
