"""Use a trained model: predict answers, search, export.

    python -m mt2st predict RUN --images pictures/ --question "what colour is it?"
    python -m mt2st predict RUN --images pictures/ --questions questions.jsonl --format vqa --out answers.json
    python -m mt2st search RUN --gallery pictures/ "a red bird" --html found.html
    python -m mt2st export RUN --format open_clip --out exported

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
from mt2st.errors import Mt2stError, unknown_name


def parser_of(name: str) -> argparse.ArgumentParser:
    """The command line of one command. Imports nothing heavy: help must come at once."""
    module = import_module(f"mt2st.commands.{name}")
    parser = argparse.ArgumentParser(
        prog=f"python -m mt2st {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Do what `argv` says; returns the exit code. Errors are one line on stderr."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0 if argv else 2
    try:
        if argv[0] not in COMMANDS:
            raise unknown_name("command", argv[0], COMMANDS)
        # Intermixed: texts may follow options, as in `search RUN --gallery pictures/ "a red bird"`.
        arguments = parser_of(argv[0]).parse_intermixed_args(list(argv[1:]))
        return int(import_module(f"mt2st.commands.{argv[0]}").run(arguments))
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


def _overview() -> str:
    lines = [(__doc__ or "").rstrip(), "", "commands (each has --help):"]
    for name in COMMANDS:
        about = (import_module(f"mt2st.commands.{name}").__doc__ or "").split("\n")[0]
        lines.append(f"  {name:10} {about}")
    return "\n".join(lines) + "\n"


def _complain(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
