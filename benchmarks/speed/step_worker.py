"""One process of `python -m benchmarks step`, part processes: blocks of the default step of a case, when told to.

    python -m benchmarks.speed.step_worker CASE THREADS

Each line of standard input is a number of steps; each answer is one JSON object. Several that a launcher's variables
bring together train one run.
"""

from __future__ import annotations

import json
import sys
import time
from io import StringIO

import torch
from rich.console import Console

from benchmarks.cases import load_card
from benchmarks.speed.loop import Loop
from benchmarks.suite import ranks


def main(case: str, threads: int) -> None:
    """Answer until standard input ends."""
    torch.set_num_threads(threads)
    ranks.join()
    card = load_card(case)
    loop = Loop(card.open(card.knobs("default"), Console(file=StringIO())), threads=threads)
    for line in sys.stdin:
        started, flops = time.perf_counter(), loop.trainer.ledger.total
        loop.block(int(line))
        told = {
            "seconds": time.perf_counter() - started,
            "images": loop.images * int(line),
            "flops": loop.trainer.ledger.total - flops,
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    ranks.leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    ranks.end(0)
