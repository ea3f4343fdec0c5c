"""Use a trained model: predict answers, search, export.

    python -m mt2st predict RUN --images pictures/ --question "what colour is it?"
    python -m mt2st predict RUN --images pictures/ --questions questions.jsonl --format vqa --out answers.json

RUN is the folder of a finished run, results/<benchmark>/<recipe>/<run_id>; its data are not needed.
Exit codes: 0 well, 1 something was left out (it is named), 2 wrong usage or an error (one line), 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mt2st.commands import COMMANDS
from mt2st.errors import Mt2stError


def build_parser() -> argparse.ArgumentParser:
    """The command line. Imports nothing heavy: help must come at once."""
    parser = argparse.ArgumentParser(
        prog="python -m mt2st", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(COMMANDS)}}}")
    for name in COMMANDS:
        module = import_module(f"mt2st.commands.{name}")
        command = commands.add_parser(
            name,
            help=(module.__doc__ or "").split("\n")[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def main(argv: Sequence[str]) -> int:
    """Do what `argv` says; returns the exit code. Errors are one line on stderr."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(import_module(f"mt2st.commands.{arguments.command}").run(arguments))
    except Mt2stError as error:
        return _complain(str(error))
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _complain(f"{error.strerror or error}: {error.filename or 'no file named'}; check space and permissions")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _complain(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
