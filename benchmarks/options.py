"""Command-line options: typed dataclasses and parsers whose errors are one line."""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Any, NoReturn

from mt2st.errors import Mt2stError

EXIT_CODES = (
    "exit codes: 0 all went well · 1 a run failed (the others went on; the table shows the hole and why) · "
    "2 bad input or an unusable file, in one line · 130 stopped by Ctrl-C or SIGTERM; the same command goes on"
)


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for a command of ours: its errors are `Mt2stError`s, its help ends with the exit codes."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise Mt2stError(f"{message}; see {self.prog} --help")

    return Parser(prog=f"python -m benchmarks {name}", description=description, epilog=EXIT_CODES, allow_abbrev=False)


def parse_dataclass(
    default: Any, argv: list[str], *, prog: str, description: str | None = None, registry: Any = None
) -> Any:
    """`default` with what `argv` changes; `--help` lists every field with its docstring and default, and exits with 0.

    Args:
        description: what `--help` says first; None = the class's docstring.
        registry: a `tyro.constructors.ConstructorRegistry` with further types; None = tyro's own types.

    Raises:
        Mt2stError: an unknown option (with the nearest names) or a value out of range, in one line.
    """
    import tyro

    def parse() -> Any:
        return tyro.cli(
            type(default), default=default, args=argv, prog=prog, description=description, registry=registry
        )

    if {"-h", "--help"} & set(argv):
        return parse()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            return parse()
    except SystemExit:
        # tyro draws a box around its message; a command line's error is one line here.
        lines = [line.strip("│╭╮╰╯─| ") for line in printed.getvalue().splitlines()[1:]]
        text = " ".join(line for line in lines if line.strip("+-"))
        text = text.replace(f"Error parsing {type(default).__name__}: ", "")
        text = text.replace(" For full helptext", "; for all options")
        raise Mt2stError(text or f"the options {argv} were not understood; see {prog} --help") from None
