"""Settings of all tests: offline, one thread a worker, no hypothesis files left behind."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each would wait for one another

from hypothesis import settings
from threadpoolctl import threadpool_limits

# A plugin may have loaded NumPy before this file was read, with as many threads as there are cores.
threadpool_limits(int(os.environ["OMP_NUM_THREADS"].split(",")[0]))

settings.register_profile("suite", database=None, deadline=None, derandomize=True)
settings.load_profile("suite")
# A shell starts what runs in the background with SIGINT ignored, and children inherit that; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup() -> None:
    """Draws of torch are the same in every order of the tests, where a test does not seed them itself."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
