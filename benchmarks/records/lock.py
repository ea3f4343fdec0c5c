"""One writer for a run folder: an exclusive lock that dies with its owner.

The lock is the kernel's (`flock`), held on the file `lock`; the file's content only says who holds it. The kernel drops
the lock with the process, also after SIGKILL or a power loss, so a lock file that outlived its owner never blocks
anyone: it is recognised by being free, and the name it still carries is reported. Forked children (data workers) close
their copy at once, so an orphaned worker cannot keep its dead parent's lock.

Not assumed: that the clock is right, or that process ids are unique across machines; both serve messages only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

from mt2st.errors import Mt2stError

_POLL_SECONDS = 0.1
_held: WeakSet[RunLock] = WeakSet()


class LockedError(Mt2stError):
    """Another process holds the lock."""


class RunLock:
    """`with RunLock(path): …`: exclusive among all processes and threads that use the same path.

    Args:
        path: the lock file; its folder is created.
        wait_seconds: 0 = fail at once when somebody else holds it; otherwise wait up to so long (`math.inf` = for
            ever).
        on_wait: called once with a line that says who is waited for.

    Raises (on entry):
        LockedError: somebody else holds the lock; the message names pid and host.
        Mt2stError: the file system has no locks.
    """

    def __init__(self, path: Path, *, wait_seconds: float = 0.0, on_wait: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.wait_seconds = wait_seconds
        self.on_wait = on_wait
        self.outlived: str = ""  # who held it last, if they never gave it back (killed); "" after an orderly end
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now."""
        return self._descriptor is not None

    def __enter__(self) -> RunLock:
        if self.held:
            raise Mt2stError(f"{self.path} is already locked by this very object; use one RunLock for one owner")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self.wait_seconds
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            told = False
            while not _try_lock(descriptor, self.path):
                owner = _owner_text(_read(descriptor))
                if time.monotonic() >= deadline:
                    raise LockedError(
                        f"{self.path.parent} is in use by {owner}; wait for it to end, or use another results folder"
                    )
                if not told and self.on_wait is not None:
                    self.on_wait(f"waiting for {self.path.parent}, in use by {owner}")
                told = True
                time.sleep(_POLL_SECONDS)
            left = _read(descriptor)
            self.outlived = _owner_text(left) if left else ""
            _write(descriptor, _own_name())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        _held.discard(self)
        # The file stays: deleting it would let a waiter lock the deleted file while a newcomer locks a new one. That it
        # cannot be emptied (a full or read-only disk) must not hide the error that is ending the block; the kernel's
        # lock goes either way.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)

    def _forget(self) -> None:
        """In a forked child: close the copy of the descriptor, which leaves the parent's lock alone."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def lock_owner(path: Path) -> str:
    """Who holds the lock file at `path` now, as text ("process 12 on host …"); "" when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return ""
    try:
        return "" if _try_lock(descriptor, path) else _owner_text(_read(descriptor))
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        cure = "put the results on a file system with locks (--results)"
        raise Mt2stError(f"{path} cannot be locked ({error.strerror}); {cure}") from error
    return True


def _own_name() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _write(descriptor: int, value: dict[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(value).encode(), 0)


def _read(descriptor: int) -> dict[str, Any] | None:
    """What the lock file says; None when it is empty, a dictionary without names when it is unreadable."""
    content = os.pread(descriptor, 4096, 0)
    if not content.strip():
        return None
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _owner_text(value: dict[str, Any] | None) -> str:
    if not value or "pid" not in value:
        return "another process"
    return f"process {value['pid']} on host {value.get('host', '?')} since {value.get('since_utc', '?')}"


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)
