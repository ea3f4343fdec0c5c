"""`python -m benchmarks`: see benchmarks/cli.py."""

import sys

from benchmarks.cli import main
from benchmarks.suite import ranks

if __name__ == "__main__":
    ranks.end(main(sys.argv[1:]))
