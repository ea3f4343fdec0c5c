"""Fail, cut short or end at every file operation of a run in turn; then a plain re-run must give the undisturbed
result.

    python tests/integration/chaos/faults.py --every 1

Compiles faults.c (needs a C compiler) and preloads it into itself. Prints one JSON object; exit code 1 if a re-run
failed or a bit differed.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FAIL, SHORT, END_BEFORE, END_AFTER = 1, 2, 3, 4
MODES = [
    ("ENOSPC", FAIL, errno.ENOSPC),
    ("EIO", FAIL, errno.EIO),
    ("EACCES", FAIL, errno.EACCES),
    ("short write, then ENOSPC", SHORT, errno.ENOSPC),
    ("crash before", END_BEFORE, 0),
    ("crash after", END_AFTER, 0),
]
_PRELOADED = "MT2ST_CHAOS_FAULTS"


def preload() -> ctypes.CDLL:
    """The library, preloaded; starts this very command again with it if it is not."""
    if _PRELOADED not in os.environ:
        folder = tempfile.mkdtemp(prefix="faults-")
        library = Path(folder) / "faults.so"
        subprocess.run(
            [compiler(), "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "faults.c"), "-ldl"], check=True
        )
        code = subprocess.run(
            [sys.executable, *sys.argv],
            env={**os.environ, "LD_PRELOAD": str(library), _PRELOADED: str(library)},
            check=False,
        ).returncode
        shutil.rmtree(folder)
        sys.exit(code)
    os.environ.pop("LD_PRELOAD", None)  # not for whatever this starts
    library = ctypes.CDLL(os.environ[_PRELOADED])
    library.fault_what.restype = ctypes.c_char_p
    return library


def compiler() -> str:
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "")
    if not found or not sys.platform.startswith("linux"):
        sys.stderr.write("needs Linux and a C compiler\n")
        sys.exit(77)
    return found


def campaign(every: int, first: int, folder: Path, library: ctypes.CDLL) -> dict[str, Any]:
    """Inject at operations first, first + every, …, each time in another mode (all modes, if `every` is 1)."""
    from chaos_suites import Suite, fork, wait

    from tests.helpers.tiny_suite import differences

    suite = Suite("vqa", folder / "data", steps=4, strategies=("Switch",))
    suite.case.build(0)
    log = folder / "log.txt"
    counted = folder / "counted"

    def run(results: Path, at: int, mode: int, code: int) -> int:
        library.fault_arm(str(results).encode(), at, mode, code)
        ended = suite.run(results)
        (folder / "count").write_text(f"{library.fault_count()} {library.fault_hit()} {library.fault_what().decode()}")
        return ended

    whole = folder / "whole"
    if code := wait(fork(lambda: suite.run(whole), log)):
        raise AssertionError(f"the undisturbed run ended with {code}: {log.read_text()}")
    expected = suite.outcome(whole)
    assert wait(fork(lambda: run(counted, -1, 0, 0), log)) == 0
    total = int((folder / "count").read_text().split()[0])
    done: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    bad: list[str] = []
    results = folder / "results"
    for step, at in enumerate(range(first, total, every)):
        for name, mode, code in MODES if every == 1 else [MODES[(step + first) % len(MODES)]]:
            (folder / "count").write_text("0 1 ended")
            log.write_text("")
            ended = wait(fork(lambda at=at, mode=mode, code=code: run(results, at, mode, code), log))  # type: ignore[misc]
            operation = (folder / "count").read_text().split(maxsplit=2)[2:]
            place = f"operation {at} of {total} ({' '.join(operation)}), {name}"
            done[name] += 1
            codes[str(ended)] += 1
            operations[" ".join(operation)] += 1
            if ended not in ((99,) if mode >= END_BEFORE else (0, 1, 2)):
                bad.append(f"{place}: exit code {ended}: {log.read_text()[-300:]}")
            elif "Traceback" in log.read_text():
                bad.append(f"{place}: a traceback on the terminal: {log.read_text()[-300:]}")
            again = wait(fork(lambda: suite.run(results), log))
            if again:
                bad.append(f"{place}: the re-run ended with {again}: {log.read_text()[-300:]}")
            else:
                bad += [f"{place}: {text}" for text in differences(expected, suite.outcome(results))]
            shutil.rmtree(results, ignore_errors=True)
    return {
        "operations_of_a_run": total, "injections": sum(done.values()), "by_mode": dict(done),
        "by_operation": dict(operations), "exit_codes": dict(codes), "failed_or_different": bad,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--every", type=int, default=1, help="1 = every operation in every mode; n = every n-th, modes in turn"
    )
    parser.add_argument("--first", type=int, default=0, help="the first operation to disturb")
    options = parser.parse_args()
    library = preload()
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(options.every, options.first, Path(folder).resolve(), library)
    import json

    print(json.dumps(found, sort_keys=True))
    return 1 if found["failed_or_different"] else 0


if __name__ == "__main__":
    sys.exit(main())
