"""One folder for all test processes of a session, so that a set is prepared once: `prepare` lets the others wait for
it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for prepared sets; pytest removes it with its other temporary folders."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared"
