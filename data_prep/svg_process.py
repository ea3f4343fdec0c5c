"""Draws SVG texts that come in, each within limits; the process that `data_prep.svg` starts. Imports nothing of ours.

A request is three numbers (side in pixels, CPU seconds, length of the text in bytes, each 4 bytes, big-endian) and the
text; an answer is one byte, 1 for a PNG and 0 for a reason, a length of 4 bytes, and the bytes.
"""

from __future__ import annotations

import contextlib
import math
import struct
import sys
import time

REQUEST, ANSWER = struct.Struct(">III"), struct.Struct(">BI")
MEMORY_BYTES = 2 << 30


def main() -> None:
    """Answer requests until the other end is closed."""
    import resvg_py

    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_AS", MEMORY_BYTES)
    while head := requests.read(REQUEST.size):
        side, seconds, length = REQUEST.unpack(head)
        text = requests.read(length).decode()
        _limit("RLIMIT_CPU", math.ceil(time.process_time()) + seconds)
        try:
            # dpi: the default fails on sizes in points. No fonts: the same pixels on every machine.
            drawn = resvg_py.svg_to_bytes(
                svg_string=text, width=side, height=side, background="#ffffff", dpi=96, skip_system_fonts=True
            )
        except ValueError as error:
            content = " ".join(str(error).split()).encode()
            answers.write(ANSWER.pack(0, len(content)) + content)
        else:
            answers.write(ANSWER.pack(1, len(drawn)) + drawn)
        answers.flush()


def _limit(name: str, value: int) -> None:
    """Set a soft limit of this process, where the system has such limits."""
    with contextlib.suppress(ImportError):  # Windows
        import resource

        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
