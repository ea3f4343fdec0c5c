"""The command line: `python -m benchmarks CASE`, and what can be done with its results.

Imports nothing heavy by itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.cases.discovery import about_case, case_names, load_case
from mt2st.errors import Mt2stError, unknown_name

EXIT_CODES = (
    "exit codes: 0 all went well · 1 a run failed (the others went on; the table shows the hole and why) · "
    "2 bad input or a file that cannot be used, in one line · 130 stopped by Ctrl-C or SIGTERM; the same command goes "
    "on"
)
# Commands beside the cases: name → (module with `main(argv) -> int`, what it does). Those whose module is absent are
# not offered.
COMMANDS = {
    "report": (
        "benchmarks.commands.report",
        "print and write the report of a case's records: report CASE [--recipe NAME]",
    ),
    "resume": ("benchmarks.commands.resume", "go on with one run: resume RUN_DIR"),
    "all": ("benchmarks.commands.all", "run every case, then one table of them all"),
    "index": ("benchmarks.search.command", "search efficiency of an embedding set, exact and approximate"),
    "peers": ("benchmarks.peers_", "side by side with other people's code: peers NAME"),
    "tune": ("benchmarks.suite.tuning", "choose each strategy's settings on validation: tune CASE"),
    "overhead": ("benchmarks.speed.overhead", "our training loop against a bare hand-written one"),
    "throughput": ("benchmarks.speed.throughput", "samples a second, and the share of the machine's measured peak"),
    "data": ("benchmarks.speed.data", "preparing and reading data against the machine's limits"),
    "list": ("benchmarks.cli", "the cases with their recipes"),
}


def main(argv: list[str]) -> int:
    """Do what `argv` says; returns the exit code (see `EXIT_CODES`). Short errors go to stderr."""
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "160")  # tables in a log or a pipe need not wrap at 80 characters
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch(argv)
    except Mt2stError as error:
        return _complain(str(error))
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _complain(
            f"{error.strerror or error}: {error.filename or 'no file named'}; check space, permissions and the path"
        )
    except KeyboardInterrupt as stop:
        reason = str(stop) or "interrupted"
        sys.stderr.write(f"{reason}; the same command goes on from the last checkpoint\n")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name == "list":
        return _list()
    if name == "peers":
        return _peers(rest)
    if name in COMMANDS and find_spec(COMMANDS[name][0]) is not None:
        return import_module(COMMANDS[name][0]).main(rest)
    if name in case_names():
        return run_case(name, rest)
    raise unknown_name("case or command", name, [*case_names(), *_commands()])


def run_case(name: str, argv: list[str]) -> int:
    """Parse a case's knobs and run it."""
    case = load_case(name)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("results"))
    try:
        shared, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise Mt2stError(f"{error}; see python -m benchmarks {name} --help") from None
    description = (
        f"{case.about}\n\n"
        f"--recipe NAME   which recipe's defaults to start from: {', '.join(case.recipes)} (default: default)\n"
        "--smoke         the same in small, for a first look; kept under the recipe's name with -smoke\n"
        "--results PATH  folder for the runs' records (default: results)\n\n"
        "The defaults below are those of recipe "
        f"{shared.recipe!r}{' with --smoke' if shared.smoke else ''}.\n\n{EXIT_CODES}"
    )
    knobs = parse_dataclass(
        case.knobs(shared.recipe, smoke=shared.smoke),
        rest,
        prog=f"python -m benchmarks {name}",
        description=description,
    )
    return case.run(knobs, shared.results, f"{shared.recipe}-smoke" if shared.smoke else shared.recipe)


def parse_dataclass(default: Any, argv: list[str], *, prog: str, description: str) -> Any:
    """`default` with what `argv` changes; `--help` lists every field with its docstring and default, and exits with 0.

    Raises:
        Mt2stError: an unknown option (with the nearest names) or a value out of range, in one line.
    """
    import contextlib
    import io

    import tyro

    if {"-h", "--help"} & set(argv):
        return tyro.cli(type(default), default=default, args=argv, prog=prog, description=description)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            return tyro.cli(type(default), default=default, args=argv, prog=prog, description=description)
    except SystemExit:
        # tyro draws a box around its message; a command line's error is one line here.
        lines = [line.strip("│╭╮╰╯─| ") for line in printed.getvalue().splitlines()[1:]]
        text = " ".join(line for line in lines if line.strip("+-")).replace(
            f"Error parsing {type(default).__name__}: ", ""
        )
        text = text.replace(" For full helptext", "; for all options")
        raise Mt2stError(text or f"the options {argv} were not understood; see {prog} --help") from None


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for a command of ours: its errors are `Mt2stError`s, its help ends with the exit codes."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise Mt2stError(f"{message}; see {self.prog} --help")

    return Parser(prog=f"python -m benchmarks {name}", description=description, epilog=EXIT_CODES, allow_abbrev=False)


def _commands() -> list[str]:
    return [
        name
        for name, (module, _) in COMMANDS.items()
        if name == "list" or (_peer_names() if name == "peers" else find_spec(module))
    ]


def _peer_names() -> list[str]:
    return sorted(path.stem.removeprefix("peers_") for path in (Path(__file__).parent / "speed").glob("peers_*.py"))


def _peers(argv: list[str]) -> int:
    names = _peer_names()
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(
            "usage: python -m benchmarks peers NAME …\n\nNAME is one of: "
            f"{', '.join(names) or 'none yet'}\n\n{EXIT_CODES}\n"
        )
        return 0 if argv else 2
    if argv[0] not in names:
        raise unknown_name("peer comparison", argv[0], names)
    return import_module(f"benchmarks.speed.peers_{argv[0]}").main(argv[1:])


def _list() -> int:
    for name in case_names():
        case = load_case(name)
        sys.stdout.write(f"{name:16} {case.about}\n{'':16} recipes: {', '.join(case.recipes)}\n")
    return 0


def _overview() -> str:
    lines = ["usage: python -m benchmarks CASE [--recipe NAME] [--smoke] [--results PATH] [knobs …]"]
    lines += [
        "       python -m benchmarks COMMAND …",
        "",
        "cases (CASE --help lists every knob with unit and default):",
    ]
    lines += [f"  {name:16} {about_case(name)}" for name in case_names()]
    lines += ["", "commands:", *[f"  {name:16} {COMMANDS[name][1]}" for name in _commands()], "", EXIT_CODES]
    return "\n".join(lines) + "\n"


def _complain(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the orderly end
    raise KeyboardInterrupt("stopped by SIGTERM")
