"""The command line: `python -m benchmarks CASE`, and its commands. Imports nothing heavy by itself."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import NoReturn

from benchmarks.cases import about_case, case_names
from benchmarks.commands import about_command, command_names
from benchmarks.options import EXIT_CODES
from benchmarks.suite import ranks
from mt2st.errors import Mt2stError, unknown_name

_TOGETHER = ("resume",)  # commands that several processes of a launcher do together, besides cases


def main(argv: list[str]) -> int:
    """Do what `argv` says; returns the exit code (see `EXIT_CODES`). Short errors go to stderr."""
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "160")  # tables in a log or a pipe need not wrap at 80 characters
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch(argv)
    except ranks.PeerLostError as error:
        if os.environ.get(ranks.LAUNCHED_BY_US):
            return ranks.LOST  # the launcher names the process that ended
        return _complain(str(error), alone=True)
    except Mt2stError as error:
        return _complain(str(error), alone=isinstance(error, ranks.RankError))
    except ModuleNotFoundError as error:
        cure = "install what the suite needs: pip install -e '.[cpu,data,benchmarks]'"
        return _complain(f"the package {error.name} is not installed; {cure}")
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason, file = error.strerror or error, error.filename or "no file named"
        return _complain(f"{reason}: {file}; check space, permissions and the path")
    except KeyboardInterrupt as stop:
        if ranks.is_first():
            sys.stderr.write(f"{str(stop) or 'interrupted'}; the same command goes on from the last checkpoint\n")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if ranks.world() > 1 and name not in (*case_names(), *_TOGETHER):
        raise Mt2stError(
            f"{name} is no work for {ranks.world()} processes; start it without a launcher, which is for cases and "
            f"{', '.join(_TOGETHER)}"
        )
    if name in command_names():
        return int(import_module(f"benchmarks.commands.{name}").main(rest))
    if name in case_names():
        return int(import_module("benchmarks.commands._case").run(name, rest))
    raise unknown_name("case or command", name, [*case_names(), *command_names()])


def _overview() -> str:
    lines = ["usage: python -m benchmarks CASE [--recipe NAME] [--smoke] [--results PATH] [knobs …]"]
    lines += [
        "       python -m benchmarks COMMAND …",
        "",
        "cases (CASE --help lists every knob with unit and default):",
    ]
    lines += [f"  {name:16} {about_case(name)}" for name in case_names()]
    lines += ["", "commands:", *[f"  {name:16} {about_command(name)}" for name in command_names()], "", EXIT_CODES]
    return "\n".join(lines) + "\n"


def _complain(message: str, *, alone: bool = False) -> int:
    """Print an error; of several processes the first one speaks for all, unless this one met it alone."""
    if alone or ranks.is_first():
        sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the orderly end
    raise KeyboardInterrupt("stopped by SIGTERM")
