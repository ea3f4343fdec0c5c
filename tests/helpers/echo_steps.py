"""Stands in for `benchmarks.speed.step_worker`: answers at once, and ends when told to make no step."""

import json
import os
import sys

for line in sys.stdin:
    if not int(line):
        break
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    told = {"seconds": 1.0 + rank, "images": 10 * int(line), "flops": 3, "processes": processes}
    print(json.dumps(told), flush=True)
