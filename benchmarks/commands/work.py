"""work: make the runs that an engine orders on standard input (started by --jobs and --engine)."""

from __future__ import annotations

import json
import os

from benchmarks.options import parser_of
from mt2st.errors import Mt2stError


def main(argv: list[str]) -> int:
    """Entry point; returns 0, 2 if a worker that reads orders must not train, or 130 if it was stopped."""
    about = "Make runs ordered on standard input, one JSON object a line; answers on standard output."
    parser = parser_of("work", about)
    parser.add_argument("--check", required=True, help="what worker and driver must have in common, as JSON")
    parser.add_argument("--order", help="make this one run, as JSON, instead of reading orders")
    parser.add_argument("--threads", type=int, help="CPU threads that libraries start with")
    options = parser.parse_args(argv)
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    # Answers have the first standard output for themselves; what libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from benchmarks.suite.engines import Check, Order
    from benchmarks.suite.worker import Worker, answered, refusal, serve

    try:
        check = Check(**json.loads(options.check))
        order = Order(**json.loads(options.order)) if options.order else None
    except (ValueError, TypeError) as error:
        raise Mt2stError(f"work: --check or --order cannot be read ({error}); engines write them") from None
    if order is None:
        # Unbuffered: a thread that waits in a buffered read would keep Python from shutting down.
        return serve(os.fdopen(os.dup(0), "rb", buffering=0), answers, check)
    why = refusal(check)
    answer = {"kind": "refused", "text": why} if why else vars(answered(Worker(), order))
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    return 0  # the answer says it all; an engine may drop it with another code
