"""SVG pictures, drawn by the package resvg-py (extra `data`): the one place for it.

What a text may not do, wherever it comes from:
    read        No other file, no address: an image inside it, and an entity, which could hide one, are refused.
    claim       At most 16 MB of text. The caller says how large the picture is, whatever size the text claims.
    exhaust     resvg ends its process on deep nesting and on patterns that need too much memory, and some filters
                take hours. So a process of its own draws, within 2 GB and 10 seconds of processor time. If it dies, the
                picture is bad and another process draws the next one. Windows has no such limits.
    vanish      Letters need fonts, which differ between machines; without a font they would be left out without a
                word. So text is refused; an editor turns it into paths.

Each picture that breaks a rule is one bad image (`ImageError`); `--on-error skip` leaves it out.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from data_prep import svg_process
from mt2st.data.images import ImageError

MAX_TEXT_BYTES = 16 << 20
CPU_SECONDS = 10
_HEAD_BYTES = 4096  # within these the root element must begin
_ROOT = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:<[?!].*?)?<(?:[\w.-]+:)?svg[\s/>]", re.DOTALL)
# An entity can hide an image from a look at the text, so there may be none.
_READS_FILES = re.compile(r"<!ENTITY|<(?:[\w.-]+:)?(?:image|feImage)\b", re.IGNORECASE)
_LETTERS = re.compile(r"<(?:[\w.-]+:)?text\b", re.IGNORECASE)


def is_svg(content: bytes) -> bool:
    """Whether an image file holds an SVG text; its name does not matter."""
    return _ROOT.match(content[:_HEAD_BYTES]) is not None


def draw_svg(content: bytes, side: int, name: str) -> bytes:
    """The PNG of an SVG text on white ground; the longer side has `side` pixels, the shorter side follows.

    Args:
        content: the file's bytes, UTF-8.
        side: in pixels.
        name: what errors call the image.

    Raises:
        ImageError: resvg-py is not installed, the text is no SVG that can be drawn, or it breaks a rule (see above).
    """
    if len(content) > MAX_TEXT_BYTES:
        raise ImageError(f"{name} is an SVG of {len(content):,} bytes, above the limit {MAX_TEXT_BYTES:,}; simplify it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _cannot(name, f"no UTF-8 at byte {error.start}") from None
    if _READS_FILES.search(text):
        raise ImageError(
            f"{name} is an SVG that holds another image or defines entities, which could read files; refused; save a "
            "PNG of it"
        )
    if _LETTERS.search(text):
        raise ImageError(f"{name} is an SVG with letters, for which fonts differ; turn them into paths, or save a PNG")
    if find_spec("resvg_py") is None:
        raise ImageError(f"{name} is an SVG, which needs the package resvg-py; pip install -e '.[data]'")
    answer = _PAINTER.ask(text.encode(), side)
    if answer is None:
        raise _cannot(name, f"it needs more than {CPU_SECONDS} s or {svg_process.MEMORY_BYTES >> 30} GB, or nests deep")
    drawn, found = answer
    if not drawn:
        raise _cannot(name, found.decode())
    return found


def _cannot(name: str, reason: str) -> ImageError:
    return ImageError(
        f"{name} is an SVG that cannot be drawn ({reason}); replace the file, or skip such images with --on-error skip"
    )


class _Painter:
    """The drawing process, started when first used and again after its death; a forked child starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, text: bytes, side: int) -> tuple[bool, bytes] | None:
        """Whether `text` was drawn, and the PNG or the reason; None if the process died of it."""
        request = svg_process.REQUEST.pack(side, CPU_SECONDS, len(text)) + text
        with self._lock:
            process = self._running()
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(request)
                process.stdin.flush()
            except BrokenPipeError:
                self.close()
                return None
            head = process.stdout.read(svg_process.ANSWER.size)
            if len(head) == svg_process.ANSWER.size:
                drawn, length = svg_process.ANSWER.unpack(head)
                found = process.stdout.read(length)
                if len(found) == length:
                    return bool(drawn), found
            self.close()
            return None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, str(Path(svg_process.__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def close(self) -> None:
        """End the process, if it is ours."""
        if self._process is not None and self._owner == os.getpid():
            process, self._process = self._process, None
            process.kill()
            process.communicate()


_PAINTER = _Painter()
atexit.register(_PAINTER.close)
